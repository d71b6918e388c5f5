"""Frozen values that check themselves: YAML, flags and Python build the same objects and get the same messages.

A configuration class is a frozen dataclass whose `__post_init__` calls `check(self)`. `check` converts each field to
its annotated type (a list to a tuple, an int to a float, a mapping to a nested dataclass), applies the field's `Rule`,
and raises one `ConfigError` that holds every mistake found, nested ones included, each with its path of keys.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from subsettune.errors import ConfigError, Mistake, did_you_mean, nearest

T = TypeVar("T")
Path = tuple[str, ...]
_BAD = object()


class FrozenDict(dict[str, Any]):
    """A mapping that cannot be changed after it was made; hashable, and pickled as what it holds."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a FrozenDict cannot be changed; make a new one")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _refuse
    __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        known: int | None = self.__dict__.get("_hash")  # kept: points of a search are looked up all the time
        if known is None:
            known = self.__dict__["_hash"] = hash(canonical_json(self))
        return known

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[str, Any]]]:
        return FrozenDict, (dict(self),)


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words and as a test, with what to do when it is not, and the names that it may be."""

    text: str
    holds: Callable[[Any], bool]
    advice: str | Callable[[], str] = ""
    known: Callable[[], typing.Iterable[str]] = tuple

    def find(self, name: str, value: Any, path: Path, mistakes: list[Mistake]) -> None:
        """Append a mistake if `value` breaks the rule; None means "not given" and breaks none."""
        if value is not _BAD and value is not None and not self.holds(value):
            advice = self.advice if isinstance(self.advice, str) else self.advice()
            advice = f"{advice} {did_you_mean(value, self.known())}".strip()
            mistakes.append(Mistake(path, must(name, self.text, value, advice)))


POSITIVE = Rule("positive", lambda v: v > 0)
NOT_NEGATIVE = Rule("0 or more", lambda v: v >= 0)
AT_LEAST_ONE = Rule("at least 1", lambda v: v >= 1)
FRACTION = Rule("in (0, 1]", lambda v: 0 < v <= 1, "It is a fraction, not a percentage: write 0.4 for 40 %.")
OPEN_FRACTION = Rule("in (0, 1)", lambda v: 0 < v < 1, "It is a fraction, not a percentage: write 0.4 for 40 %.")
UNIT = Rule("in [0, 1]", lambda v: 0 <= v <= 1, "It is a fraction, not a percentage: write 0.4 for 40 %.")
NOT_EMPTY = Rule("not empty", lambda v: len(v) > 0)


def one_of(known: Callable[[], typing.Iterable[str]], what: str) -> Rule:
    """A rule that a name is known, or points to code as `package.module:name`; the message lists the known ones."""
    return Rule(
        f"a known {what} or package.module:name",
        lambda name: ":" in name or name in set(known()),
        lambda: f"Known: {', '.join(sorted(known()))}.",
        known,
    )


def setting(default: Any = dataclasses.MISSING, *, rule: Rule | None = None, doc: str = "") -> Any:
    """A dataclass field with a rule (applied to values that are not None) and one line of documentation."""
    metadata = {"rule": rule, "doc": doc}
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(instance: Any) -> None:
    """Convert and check all fields of a frozen dataclass in place; call it from `__post_init__`.

    Raises:
        ConfigError: with every mistake of this object and of those nested in it.
    """
    mistakes: list[Mistake] = []
    hints = _hints(type(instance))
    for field in dataclasses.fields(instance):
        value = convert(hints[field.name], getattr(instance, field.name), (field.name,), mistakes)
        if field.metadata.get("rule") is not None:
            field.metadata["rule"].find(field.name, value, (field.name,), mistakes)
        if value is not _BAD:
            object.__setattr__(instance, field.name, value)
    if mistakes:
        raise ConfigError(tuple(mistakes))


def must(name: str, rule: str, value: object, advice: str = "") -> str:
    """The house sentence: `{name} must be {rule}, got {value!r}. {advice}`."""
    return f"{name} must be {rule}, got {value!r}. {advice}".rstrip()


def build(cls: type[T], raw: object, *, source: str | None = None, lines: Mapping[Path, int] | None = None) -> T:
    """Make a configuration object from plain data (parsed YAML or JSON, or a dict written in Python).

    Args:
        cls: a dataclass that calls `check`.
        raw: mappings, lists and scalars.
        source: name of the file, for the messages.
        lines: line number of each path of keys, for the messages.

    Raises:
        ConfigError: with all mistakes, each with its place.
    """
    mistakes: list[Mistake] = []
    value = convert(cls, raw, (), mistakes)
    if mistakes:
        raise ConfigError(tuple(with_line(m, lines or {}) for m in mistakes), source)
    return typing.cast(T, value)


def to_plain(value: Any) -> Any:
    """Turn a configuration object into mappings, lists and scalars that `build` and JSON understand; bytes: base64."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "to_mapping"):
            return value.to_mapping()
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def canonical_json(value: Any) -> str:
    """One text for one value, whatever the order of its keys; NaN and infinity are refused."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of `canonical_json(value)`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def unknown_key(key: object, known: typing.Iterable[str]) -> str:
    """The message for a key that nobody reads: it names the known ones, and the nearest of them."""
    names = sorted(known)
    guess = f"{did_you_mean(key, names)} ".lstrip()
    return f"unknown key. {guess}Known keys: {', '.join(names) or 'none, there are no options'}."


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def convert(hint: Any, raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    """Convert `raw` to the type `hint`; on failure append to `mistakes` and return a sentinel."""
    origin = typing.get_origin(hint)
    raw = _unpacked(raw)
    if hint is Any:
        return _frozen(raw)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, raw, path, mistakes)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        return raw if raw in choices else _bad_choice(path, choices, raw, mistakes)
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint)[0], raw, path, mistakes)
    if hint is FrozenDict or origin is Mapping:
        return _convert_mapping(raw, path, mistakes)
    if dataclasses.is_dataclass(hint):
        return _convert_dataclass(typing.cast(type, hint), raw, path, mistakes)
    return _convert_scalar(hint, raw, path, mistakes)


def _convert_scalar(hint: Any, raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    if hint is type(None):
        return raw if raw is None else _bad(path, "null", raw, mistakes)
    is_bool = isinstance(raw, bool)
    if hint is float:
        if isinstance(raw, int | float) and not is_bool and abs(raw) <= sys.float_info.max:  # false for NaN
            return float(raw)
        return _bad(path, "a finite number", raw, mistakes, _unquote(raw))
    if hint is int:
        if isinstance(raw, int) and not is_bool:
            return raw
        return _bad(path, "a whole number", raw, mistakes, _unquote(raw))
    if hint is bool:
        return raw if is_bool else _bad(path, "true or false", raw, mistakes)
    if hint is bytes:
        return raw if isinstance(raw, bytes) else _decoded(raw, path, mistakes)
    assert hint is str, f"no conversion to {hint}"
    return raw if isinstance(raw, str) else _bad(path, "a text", raw, mistakes)


def _decoded(raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    try:
        return base64.b64decode(raw, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return _bad(path, "bytes, or base64 text of them", raw, mistakes)


def _convert_union(hint: Any, raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    options = typing.get_args(hint)
    if raw is None and type(None) in options:
        return None
    attempts: list[list[Mistake]] = []
    for option in options:
        if option is type(None):
            continue
        found: list[Mistake] = []
        value = convert(option, raw, path, found)
        if not found:
            return value
        attempts.append(found)
    mistakes.extend(max(attempts, key=lambda found: max(len(mistake.path) for mistake in found)))
    return _BAD


def _convert_tuple(inner: Any, raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    if not isinstance(raw, list | tuple):
        return _bad(path, "a list", raw, mistakes)
    before = len(mistakes)
    values = tuple(convert(inner, item, (*path, str(i)), mistakes) for i, item in enumerate(raw))
    return values if len(mistakes) == before else _BAD


def _convert_mapping(raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    """A free mapping: whatever a file can hold and JSON can tell apart from everything else."""
    if not isinstance(raw, Mapping):
        return _bad(path, "a mapping of names to values", raw, mistakes)
    before = len(mistakes)
    value = _frozen_plain(raw, path, mistakes)
    return value if len(mistakes) == before else _BAD


def _frozen_plain(raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    """Plain data, frozen; what is none, or is not equal to itself, is a mistake."""
    raw = _unpacked(raw)
    if isinstance(raw, Mapping):
        if len({str(key) for key in raw}) < len(raw):
            _bad(path, "a mapping whose keys differ as texts", sorted(map(repr, raw)), mistakes)
        return FrozenDict({str(key): _frozen_plain(value, (*path, str(key)), mistakes) for key, value in raw.items()})
    if isinstance(raw, list | tuple):
        return tuple(_frozen_plain(value, (*path, str(i)), mistakes) for i, value in enumerate(raw))
    if isinstance(raw, float) and not abs(raw) <= sys.float_info.max:
        return _bad(path, "a finite number", raw, mistakes, "Leave it out, or write null or a text for it.")
    if raw is None or isinstance(raw, bool | int | float | str):
        return raw
    advice = "Name it by a text that your code understands."
    return _bad(path, "a text, a number, true, false, null, a list or a mapping", raw, mistakes, advice)


def _unpacked(raw: Any) -> Any:
    """Numbers and arrays of NumPy and torch as Python's own; all else as it is."""
    is_array = hasattr(raw, "dtype") and hasattr(raw, "shape") and hasattr(raw, "tolist")
    return raw.tolist() if is_array else raw


def _convert_dataclass(cls: type, raw: Any, path: Path, mistakes: list[Mistake]) -> Any:
    if isinstance(raw, cls):
        return raw
    if not isinstance(raw, Mapping) and hasattr(cls, "from_object"):  # of Python, which files cannot hold
        raw = cls.from_object(raw)
    if not isinstance(raw, Mapping):
        return _bad(path, "a mapping of keys to values", raw, mistakes)
    before = len(mistakes)
    if hasattr(cls, "fold"):  # a class may gather free keys into one field before they are checked
        try:
            raw = cls.fold(raw)
        except ConfigError as error:
            mistakes.extend(Mistake((*path, *m.path), m.message) for m in error.mistakes)
            return _BAD
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    strange = [key for key in raw if key not in fields]
    mistakes.extend(Mistake((*path, str(key)), unknown_key(key, fields)) for key in strange)
    meant = {nearest(key, fields) for key in strange}  # a mistyped key is one mistake, not two
    missing = [name for name in _required(fields) if name not in raw and name not in meant]
    mistakes.extend(Mistake(path, f"key {name!r} is missing.") for name in missing)
    known = {key: value for key, value in raw.items() if key in fields}
    try:
        value = cls(**known) if len(mistakes) == before else _probe(cls, known, fields)
    except ConfigError as error:
        mistakes.extend(Mistake((*path, *m.path), m.message) for m in error.mistakes)
    return value if len(mistakes) == before else _BAD


def _probe(cls: type, known: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    """Check the fields that are there although others are missing or misspelt, so that all mistakes come at once."""
    mistakes: list[Mistake] = []
    for name, raw in known.items():
        value = convert(_hints(cls)[name], raw, (name,), mistakes)
        if fields[name].metadata.get("rule") is not None:
            fields[name].metadata["rule"].find(name, value, (name,), mistakes)
    if mistakes:
        raise ConfigError(tuple(mistakes))
    return _BAD


def _required(fields: Mapping[str, dataclasses.Field[Any]]) -> Iterator[str]:
    for name, field in fields.items():
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            yield name


def _bad(path: Path, rule: str, raw: Any, mistakes: list[Mistake], advice: str = "") -> Any:
    name = next((part for part in reversed(path) if not part.isdigit()), "the input")
    mistakes.append(Mistake(path, must(name, rule, raw, advice)))
    return _BAD


def _bad_choice(path: Path, choices: tuple[Any, ...], raw: Any, mistakes: list[Mistake]) -> Any:
    guess = did_you_mean(raw, choices) if isinstance(raw, str) else ""
    return _bad(path, f"one of {', '.join(map(str, choices))}", raw, mistakes, guess)


def _unquote(raw: object) -> str:
    """What to do about a text where a number must be."""
    try:
        is_number = isinstance(raw, str) and abs(float(raw)) <= sys.float_info.max
    except ValueError:
        return ""
    if not is_number:
        return ""
    return "Write it without underscores." if "_" in str(raw) else "Write it without quotes."


def _frozen(raw: Any) -> Any:
    if isinstance(raw, Mapping):
        return FrozenDict({str(key): _frozen(value) for key, value in raw.items()})
    if isinstance(raw, list | tuple):
        return tuple(_frozen(value) for value in raw)
    return raw


def with_line(mistake: Mistake, lines: Mapping[Path, int]) -> Mistake:
    """Give a mistake the line of its key, or of the nearest key around it."""
    for length in range(len(mistake.path), -1, -1):
        if mistake.path[:length] in lines:
            return dataclasses.replace(mistake, line=lines[mistake.path[:length]])
    return mistake
