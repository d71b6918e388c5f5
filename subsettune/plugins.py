"""User code by name: `package.module:name`, importable from the current directory too."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError


def load_object(name: str, what: str, *, is_installed: bool = False) -> Any:
    """Import what `package.module:name` names.

    Args:
        name: the module, a colon, and an attribute of it (dots allowed).
        what: what it is for, for the message: "model", "optimizer", ...
        is_installed: whether a package brings it, ours or another: then the working folder is not looked at.

    Raises:
        ConfigError: the module cannot be imported or has no such attribute; the cause is in the sentence.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(must(what, "package.module:name", name, "Name both the module and what is in it."))
    value = _load_module(module_name, f"{what} {name!r}", is_installed=is_installed)
    try:
        for part in attribute.split("."):
            value = getattr(value, part)
    except AttributeError as error:
        raise ConfigError(f"{what} {name!r} cannot be found: {error}. Check the name after the colon.") from error
    return value


def _load_module(name: str, what: str, *, is_installed: bool = False) -> Any:
    here = str(Path.cwd())
    if not is_installed and here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        advice = "Run from the folder that holds the module, or install it."
        raise ConfigError(f"{what} cannot be imported: {error}. {advice}") from error
    except Exception as error:  # whatever the user's module does while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what} cannot be imported: module {name} fails with {reason}. Mend it.") from error


def source_digest(name: str) -> str:
    """SHA-256 of the source file of the module in `package.module:name`, as it was when first asked for.

    What that module imports is not covered. A module without a file (built in, or typed at a prompt) gives "".

    Raises:
        ConfigError: the module cannot be imported.
    """
    return _digest_of_module(name.partition(":")[0])


@functools.cache  # a process runs the code that it has loaded, whatever becomes of the file
def _digest_of_module(name: str) -> str:
    file = getattr(_load_module(name, f"module {name!r}"), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file is not None and Path(file).is_file() else ""


def call(function: Any, name: str, options: Mapping[str, Any], offered: Mapping[str, Any] | None = None) -> Any:
    """Call user code with its options and with those of the `offered` arguments that it takes.

    Args:
        function: the user's function or class.
        name: what it is, for the message.
        options: all of them are passed.
        offered: passed where the function has a parameter of that name, or takes any; an option of that name wins.

    Raises:
        ConfigError: it cannot be called, an option is none of its own, or one that it needs is missing.
    """
    if not callable(function):
        raise ConfigError(f"{name} must be a function or a class, got {type(function).__name__}. Check the name.")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in classes have none
        return _call_unseen(function, name, {**(offered or {}), **options})
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    known = {k: v for k, v in (offered or {}).items() if (takes_any or k in signature.parameters) and k not in options}
    try:
        signature.bind(**known, **options)
    except TypeError as error:
        names = [p for p in signature.parameters if p not in (offered or {})]
        raise ConfigError(
            f"{name} does not fit its options: {error}. It takes: {', '.join(names) or 'none'}."
        ) from error
    return function(**known, **options)


def _call_unseen(function: Any, name: str, options: Mapping[str, Any]) -> Any:
    """Call what does not tell its parameters."""
    try:
        return function(**options)
    except TypeError as error:
        raise ConfigError(f"{name} does not fit its options: {error}.") from error
