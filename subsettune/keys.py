"""Keys of object stores in addresses: they work, are masked wherever an address is shown, and are stored nowhere."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from subsettune.errors import StorageError

KEYS = re.compile(r"(\w+://)([^/@\s'\"]+)@")  # of a URI, before the @; a slash in a secret is written %2F


def masked(text: str) -> str:
    """A text with `***` in place of the keys of each URI in it, to be shown and kept."""
    return KEYS.sub(r"\1***@", text)


def without_keys(uri: str) -> str:
    """The URI without its keys (`s3://KEY:SECRET@bucket`), which go where clients of S3 look: into the environment.

    Raises:
        StorageError: they are masked; it is a command of ours, copied.
    """
    found = KEYS.match(uri)
    if found is None or not uri.startswith("s3://"):
        return uri
    if found[2] == "***":
        advice = "Write the keys again, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and leave the stars out."
        raise StorageError(f"storage must be given with its keys, got {uri!r}. {advice}")
    key, colon, secret = (unquote(part) for part in found[2].partition(":"))
    if colon:
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = key, secret
        os.environ.pop("AWS_SESSION_TOKEN", None)  # that of other keys
    return uri.replace(f"{found[2]}@", "", 1)
