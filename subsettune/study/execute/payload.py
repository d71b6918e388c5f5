"""What goes from the driver to the workers with every run: settings, keys and places, never data.

It is pickled, sent and kept by Ray. What is large is found by its content hash in the cache of each node, which reads
it once however many runs are trained there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune import config
from subsettune.config import must
from subsettune.errors import StudyError

MOST_BYTES = 1_000_000
ADVICE = "Put it into a file that every node can read, and give its path instead."


def sent(what: str, value: Any) -> str:
    """A configuration object as it is sent: JSON.

    Args:
        what: it is, in a word.
        value: of a dataclass.

    Raises:
        StudyError: it is too large to go with every run; the sentence names its largest part.
    """
    text = config.canonical_json(value)
    if len(text.encode()) <= MOST_BYTES:
        return text
    path, num_bytes = _largest(config.to_plain(value))
    rule = f"small: all that goes with a run has at most {MOST_BYTES:,} bytes"
    raise StudyError(must(".".join((what, *path)), rule, f"{num_bytes:,} bytes", ADVICE))


def _largest(plain: Any) -> tuple[tuple[str, ...], int]:
    """Keys down to the part that most of the bytes lie in, and its bytes."""
    path: tuple[str, ...] = ()
    while isinstance(plain, Mapping) and plain:
        sizes = {name: _num_bytes(value) for name, value in plain.items()}
        name = max(sizes, key=lambda one: sizes[one])
        if path and 2 * sizes[name] < _num_bytes(plain):
            break
        path, plain = (*path, str(name)), plain[name]
    return path, _num_bytes(plain)


def _num_bytes(plain: Any) -> int:
    return len(config.canonical_json(plain).encode())
