"""User code by name: `package.module:name`, importable from the current directory too."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subsettune.errors import ConfigError


def load_object(name: str, what: str) -> Any:
    """Import what `package.module:name` names.

    Args:
        name: the module, a colon, and an attribute of it (dots allowed).
        what: what it is for, for the message: "model", "optimizer", ...

    Raises:
        ConfigError: the module cannot be imported or has no such attribute; the cause is in the sentence.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        value: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except ImportError as error:
        advice = "Run from the folder that holds the module, or install it."
        raise ConfigError(f"{what} {name!r} cannot be imported: {error}. {advice}") from error
    except AttributeError as error:
        raise ConfigError(f"{what} {name!r} cannot be found: {error}. Check the name after the colon.") from error
    return value


def call(function: Any, name: str, options: Mapping[str, Any], offered: Mapping[str, Any] | None = None) -> Any:
    """Call user code with its options and with those of the `offered` arguments that it takes.

    Raises:
        ConfigError: an option that the function does not take, or one that it needs and did not get.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in classes have none
        return function(**(offered or {}), **options)
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
