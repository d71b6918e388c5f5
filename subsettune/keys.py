"""Keys of object stores in addresses: they work, are masked wherever an address is shown, and are stored nowhere."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from subsettune.errors import StorageError

# What stands before the @ of a URI, but for `anonymous`, which is no key. In that of a bucket a slash of the secret
# ought to be %2F, and is often left.
KEYS = re.compile(r"(\w+://)(?!anonymous@)([^/@\s'\"]+|(?<=s3://)[^/:@\s'\"]+:[^@?\s'\"]+)@")
SECRETS = re.compile(r"(?i)([?&][\w.-]*(?:key|secret|token|passw|credential|signature)[\w.-]*=)([^&\s'\"]+)")
ADVICE = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY and leave them out"
MASK = "***"
SECRET_SETTINGS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
SETTINGS = (*SECRET_SETTINGS, "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


def masked(text: str) -> str:
    """A text with `***` in place of the keys and other secrets of each URI in it, to be shown and kept."""
    return SECRETS.sub(rf"\1{MASK}", KEYS.sub(rf"\1{MASK}@", text))


def has_keys(uri: str) -> bool:
    """Whether keys or other secrets stand in an address, masked ones included."""
    return bool(SECRETS.search(uri) or KEYS.match(uri))


def without_keys(uri: str) -> str:
    """The URI without its keys (`s3://KEY:SECRET@bucket`), which go where clients of S3 look: into the environment.

    Args:
        uri: a URI, or a path, which stays as it is.

    Raises:
        StorageError: they are masked, as in a command of ours that was copied, or stand where no client looks for them.
    """
    if not uri.startswith("s3://"):
        return uri
    secret = SECRETS.search(uri)
    if secret is not None:
        key = secret[1].strip("?&=")
        raise StorageError(f"storage must have no {key} in its query, got {masked(uri)!r}. {ADVICE}.")
    found = KEYS.match(uri)
    if found is None:
        return uri
    if found[2] == MASK:
        raise StorageError(f"storage must be given with its keys, got {uri!r}. Write them again. Or: {ADVICE}.")
    key, colon, word = (unquote(part) for part in found[2].partition(":"))
    if colon:
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = key, word
        os.environ.pop("AWS_SESSION_TOKEN", None)  # that of other keys
    return uri.replace(f"{found[2]}@", "", 1)


def settings_of_stores() -> dict[str, str]:
    """What processes on other nodes need to reach the stores that this one reaches, for their environment."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}
