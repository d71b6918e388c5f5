"""What a user's own modules keep from one run to the next: it is told, since later runs may depend on it.

Selectors, orders and transitions cannot be tried before they run, as networks and optimizers are. So the plain values
of their modules and classes are noted before a run and looked at after it.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

_LOG = logging.getLogger("subsettune")
_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, deque)
_TOLD: set[str] = set()


def snapshot(targets: Iterable[str]) -> dict[str, object]:
    """What the modules of `package.module:name` and their classes hold in lists, numbers, arrays and the like, by name.

    Args:
        targets: modules that are not loaded are left out.
    """
    found = {}
    for module_name in sorted({target.partition(":")[0] for target in targets}):
        module = sys.modules.get(module_name)
        for name, value in _values(module_name, vars(module) if module is not None else {}):
            mark = _mark(value)
            if mark is not None:
                found[f"{module_name}:{name}"] = mark
    return found


def tell(before: Mapping[str, object], after: Mapping[str, object]) -> None:
    """Tell on the log, once a process, what a run has changed."""
    changed = [name for name in after if after[name] != before.get(name) and name not in _TOLD]
    if changed:
        _TOLD.update(changed)
        _LOG.warning(
            "A run has changed %s. If a later run reads it, runs depend on each other, and the same seed gives other "
            "results: keep it in the object, not in its class or module.",
            ", ".join(changed),
        )


def _values(module_name: str, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Values of a module, and of the classes that are made in it."""
    for name, value in list(names.items()):
        if name.startswith("__"):
            continue
        if isinstance(value, type):
            if value.__module__ == module_name:
                held = [(key, v) for key, v in list(vars(value).items()) if not key.startswith("_abc")]
                yield from ((f"{name}.{key}", v) for key, v in held if not key.startswith("__"))
        else:
            yield name, value


def _mark(value: Any) -> object:
    """Something that is another thing when the value has changed; None for what is not looked at."""
    if isinstance(value, nn.Module):
        return tuple((id(v), v._version) for v in (*value.parameters(), *value.buffers()))
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return value.shape, hash(value.tobytes())
    return repr(value) if isinstance(value, _PLAIN) else None
