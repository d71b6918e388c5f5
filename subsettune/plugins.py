"""User code by name: `package.module:name`, importable from the current directory too."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from subsettune import config, user_code
from subsettune.config import must
from subsettune.errors import ConfigError, did_you_mean

MAIN = "__main__"  # the script or notebook that runs; in a worker it is another one
_importing: list[str] = []  # modules of the user's that are being imported, the innermost last


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
    value = module = _load_module(module_name, f"{what} {name!r}", is_installed=is_installed)
    try:
        for part in attribute.split("."):
            value = getattr(value, part)
    except AttributeError as error:
        advice = _shadowed(module) or " Check the name after the colon."
        raise ConfigError(f"{what} {name!r} cannot be found: {error}.{advice}") from error
    return value


def _load_module(name: str, what: str, *, is_installed: bool = False) -> Any:
    _importing.append(name)
    is_new = name not in sys.modules
    try:
        is_ours = name.partition(".")[0] == user_code.OURS
        with contextlib.nullcontext() if is_installed or is_ours else _working_folder_first():
            module = importlib.import_module(name)
    except ConfigError:
        raise
    except ImportError as error:
        advice = "Run from the folder that holds the module, or install it."
        raise ConfigError(f"{what} cannot be imported: {error}. {advice}") from error
    except Exception as error:  # whatever the user's module does while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what} cannot be imported: module {name} fails with {reason}. Mend it.") from error
    finally:
        _importing.pop()
    if is_new and not is_installed:
        user_code.digest_of(name)  # now, while the file is what was loaded
    return module


@contextlib.contextmanager
def _working_folder_first() -> Iterator[None]:
    """Look into the working folder first while the user's module is imported, and last from then on.

    First for good, a file `random.py` or `platform.py` there would take the place of Python's own in what we, torch and
    Ray import later.
    """
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
        sys.path.append(here)


def refuse_within_import() -> None:
    """Refuse to start a study out of a module that is imported for its functions: it would start within itself.

    Raises:
        ConfigError: a module that a study names is being imported right now.
    """
    if _importing:
        advice = 'Put the call under `if __name__ == "__main__":`, so that the module can be imported.'
        raise ConfigError(f"module {_importing[-1]} starts a study while it is imported for one. {advice}")


def _shadowed(module: ModuleType) -> str:
    """A hint where the working folder holds a file of a module's name that is not what was imported."""
    file, mine = getattr(module, "__file__", None), Path(f"{module.__name__.replace('.', '/')}.py")
    if not mine.is_file() or (file is not None and Path(file).resolve() == mine.resolve()):
        return ""
    return f" It is Python's or another package's, not {mine}: give that file another name."


def source_digest(name: str, options: Mapping[str, Any] | None = None, what: str = "code") -> str:
    """Content hash of the user's code in `package.module:name`, as it was when first asked for or last reloaded.

    Args:
        name: the module, a colon, and what is in it.
        options: that it is called with; the files that they name are part of the hash.
        what: what it is for, for the message.

    Returns:
        SHA-256 of the module's source file where it imports nothing of the user's and its options name no file; of all
        of these otherwise, as `user_code` finds them. A module without a file (built in, or typed at a prompt) gives
        "".

    Raises:
        ConfigError: the module cannot be imported.
        DataError: a file that an option names cannot be read.
    """
    module = name.partition(":")[0]
    _load_module(module, f"{what} {name!r}")
    code, files = user_code.digest_of(module), user_code.digest_of_files(options or {})
    return config.digest([code, files]) if files else code


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
        strange = next((option for option in options if option not in names), None)
        guess = "" if strange is None or takes_any else f"{did_you_mean(strange, names)} ".lstrip()
        raise ConfigError(
            f"{name} does not fit its options: {error}. {guess}It takes: {', '.join(names) or 'none'}."
        ) from error
    return function(**known, **options)


def _call_unseen(function: Any, name: str, options: Mapping[str, Any]) -> Any:
    """Call what does not tell its parameters."""
    try:
        return function(**options)
    except TypeError as error:
        raise ConfigError(f"{name} does not fit its options: {error}.") from error
