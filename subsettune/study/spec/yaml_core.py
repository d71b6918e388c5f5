"""YAML 1.2 as study files have it: the core schema, anchors and merge keys, from ruamel's events to plain data.

The core schema (https://yaml.org/spec/1.2.2/#103-core-schema) knows null, true, false, whole numbers in three bases and
floating-point numbers. All else that is not quoted is a text as it stands: `yes`, `1_000`, `1:30`, `2024-05-01`. Merge
keys (`<<: *base`) are no part of YAML 1.2, but people write them, and mean what YAML 1.1 made of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from subsettune.errors import ConfigError, Mistake

Path = tuple[str, ...]
MERGE = "<<"
_CORE = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)(\.inf|\.Inf|\.INF)")
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_SHAPES = ("map", "seq", "str", "int", "float", "bool", "null")  # tags that say no more than is there
_DIGITS = 4000  # Python reads no longer number


class NotYamlError(ConfigError):
    """The text is not YAML, or has what a study file cannot have."""


@dataclass(slots=True)
class _Node:
    """A part of the document.

    Args:
        value: a scalar, a list of nodes, or pairs of a key and a node with the line of the key.
        line: where it begins, from 1.
        is_whole: false while its end has not been read.
    """

    value: Any
    line: int
    is_whole: bool = True


def parse_yaml(text: str) -> tuple[Any, dict[Path, int]]:
    """Plain data, and the line of every key by its path; of a merged key the line where it was written.

    Raises:
        NotYamlError: with the line.
    """
    try:
        events = iter(list(YAML(typ="safe", pure=True).parse(text)))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _not_yaml(_problem(error), line) from error
    except YAMLError as error:
        reason = str(error).splitlines()[0]
        raise _not_yaml(f"not valid YAML: {reason}. Save it as plain text.", None) from error
    root = _Composer(events).document()
    lines: dict[Path, int] = {}
    return (None if root is None else _plain(root, (), lines)), lines


def scalar(text: str) -> Any:
    """What a scalar without quotes stands for; nothing at all is an empty text here.

    Raises:
        NotYamlError: it is a number that no computer holds.
    """
    return _resolved(text, 1) if text else text


def _not_yaml(message: str, line: int | None) -> NotYamlError:
    return NotYamlError((Mistake((), message, line),))


def _problem(error: MarkedYAMLError) -> str:
    """What is wrong in one line, with the remedy for the commonest slip."""
    problem = (error.problem or "it does not parse").strip().splitlines()[0]
    if "'\\t'" in problem:
        return "not valid YAML: a tab stands where spaces must. Indent with spaces."
    return f"not valid YAML: {problem}. Check brackets, quotes and indentation there."


class _Composer:
    """Builds nodes from events.

    Args:
        events: of the whole text.
    """

    def __init__(self, events: Iterator[Event]) -> None:
        self._events = events
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node | None:
        """The one document; None where there is none."""
        root = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    message = "a second document begins here. Write one study a file, without --- between."
                    raise _not_yaml(message, _line(event))
                if event.version not in (None, (1, 2)):
                    major, minor = event.version
                    message = f"files are read as YAML 1.2, and this says {major}.{minor}. Remove the %YAML line."
                    raise _not_yaml(message, _line(event))
                root = self._node(next(self._events))
        return root

    def _node(self, event: Event) -> _Node:
        if isinstance(event, AliasEvent):
            return self._named(event)
        assert isinstance(event, NodeEvent)
        _refuse_tag(event)
        node = _Node(None, _line(event), is_whole=False)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(event, ScalarEvent):
            node.value = _scalar(event)
        elif isinstance(event, SequenceStartEvent):
            node.value = list(self._items())
        else:
            assert isinstance(event, MappingStartEvent)
            node.value = tuple(self._pairs())
        node.is_whole = True
        return node

    def _named(self, event: AliasEvent) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            message = f"not valid YAML: *{event.anchor} is used, and no &{event.anchor} is above it. Write it first."
            raise _not_yaml(message, _line(event))
        if not node.is_whole:
            raise _not_yaml(f"*{event.anchor} stands inside of what it names. Write the values out.", _line(event))
        return node

    def _items(self) -> Iterator[_Node]:
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                return
            yield self._node(event)

    def _pairs(self) -> Iterator[tuple[str, _Node, int]]:
        """Keys as they are written, with their nodes and lines."""
        seen: set[str] = set()
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                return
            if not isinstance(event, ScalarEvent):
                raise _not_yaml("a key must be a text, and here is a list, a mapping or *name.", _line(event))
            if event.value in seen:
                message = f'not valid YAML: key "{event.value}" is there twice. Remove one of them.'
                raise _not_yaml(message, _line(event))
            seen.add(event.value)
            yield event.value, self._node(next(self._events)), _line(event)


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _refuse_tag(event: NodeEvent) -> None:
    found = getattr(event, "tag", None)
    tag = "" if found is None else str(found)
    if tag in ("", "!") or tag.removeprefix(_CORE) in _SHAPES:
        return
    shown = f"!!{tag.removeprefix(_CORE)}" if tag.startswith(_CORE) else tag
    advice = "Write texts, numbers, true, false, null, lists and mappings, without it."
    raise _not_yaml(f"tag {shown} means nothing here. {advice}", _line(event))


def _scalar(event: ScalarEvent) -> Any:
    text = str(event.value)
    is_plain, tag = not event.style, str(event.tag or "").removeprefix(_CORE)
    if tag in ("str", "!") or (not is_plain and not tag):
        return text
    value = _resolved(text, _line(event))
    if tag == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    wanted = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(tag)
    if wanted is not None and type(value) is not wanted:
        raise _not_yaml(f"{text!r} is no {tag}, as !!{tag} says. Remove the tag.", _line(event))
    return value


def _resolved(text: str, line: int) -> Any:
    """What a scalar without quotes means in the core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > _DIGITS:
            raise _not_yaml(f"a number of {len(text):,} digits is too long. Write it in quotes.", line)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        if math.isinf(float(text)):
            raise _not_yaml(f"{text} is larger than any number that a computer holds. Write a smaller one.", line)
        return float(text)
    infinite = _INFINITY.fullmatch(text)
    return text if infinite is None else -math.inf if infinite[1] == "-" else math.inf


def _plain(node: _Node, path: Path, lines: dict[Path, int]) -> Any:
    if isinstance(node.value, list):
        return [_plain(item, (*path, str(i)), lines) for i, item in enumerate(node.value)]
    if not isinstance(node.value, tuple):
        return node.value
    found = {}
    for key, (inner, line) in _merged(node).items():
        lines[(*path, key)] = line
        found[key] = _plain(inner, (*path, key), lines)
    return found


def _merged(node: _Node) -> dict[str, tuple[_Node, int]]:
    """Keys with nodes and lines, those of `<<` first; its own win, then those of an earlier source."""
    found: dict[str, tuple[_Node, int]] = {}
    for key, inner, line in node.value:
        if key == MERGE:
            sources = inner.value if isinstance(inner.value, list) else [inner]
            if not all(isinstance(source.value, tuple) for source in sources):
                raise _not_yaml("<< must be a mapping, or a list of mappings, e.g. <<: *base.", line)
            for source in sources:
                found = {**_merged(source), **found}
    return {**found, **{key: (inner, line) for key, inner, line in node.value if key != MERGE}}
