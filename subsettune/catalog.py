"""What a study file may name: selectors, orders, transitions, metrics, models and data, each in a line or explained.

What is told of one is what its class or function says of itself: there is no second list.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from subsettune.config import must
from subsettune.errors import ConfigError, did_you_mean
from subsettune.registry import DATASETS, METRICS, MODELS, ORDERS, OWN_METRICS, SELECTORS, TRANSITIONS, Registry

DATA = {
    **DATASETS,
    "PATH.parquet, FOLDER": "Parquet: `image`, `text` or numeric columns, `label`; train, validation, test in a folder",
    "PATH.csv, PATH.csv.gz, FOLDER": "the same as .csv, whatever its separator and decimal mark",
    "FOLDER": "a folder of pictures for each class, as photos/cat/1.jpg; or train, val and test of such",
    "PATH.tsv, PATH.tsv.gz, FOLDER": "tab-separated `text: COLUMN` and `label`; train, test, or shards in a folder",
    "PATH.npz": "arrays x and y (or x_train and y_train), and x_test and y_test if there are any",
    "package.module:function": "returns a map-style torch Dataset, or a pair of them: training, test",
}


COMPONENTS = {registry.what: registry for registry in (SELECTORS, ORDERS, TRANSITIONS)}


def rows(what: str) -> list[dict[str, Any]]:
    """Rows of name, about and options.

    Args:
        what: `selector`, `order`, `transition`, `metric`, `model` or `data`.
    """
    if what in COMPONENTS:
        return _components(COMPONENTS[what])
    if what == "model":
        return _models()
    if what == "metric":
        return _metrics()
    assert what == "data", what
    return [{"name": name, "about": about} for name, about in DATA.items()]


def _components(known: Registry) -> list[dict[str, Any]]:
    """All of a kind, those of installed packages too, and how to write one's own."""
    found = []
    for name, about in known.summaries().items():
        cls = known[name]
        more = getattr(cls, "in_space", "")
        found.append({"name": name, "about": f"{about}. {more}" if more else about, "options": _fields(cls)})
    written = f"Options are written {known.what.upper()}.OPTION in a space, and {known.what}_options in a policy"
    about = f"your own: a subclass of {known.base.replace(':', '.')}. {written}."
    return [*found, {"name": known.user_code, "about": about}]


def _metrics() -> list[dict[str, Any]]:
    """With the kinds of tasks that they suit, their direction, and whether they speak of other test examples."""
    found = []
    for name, metric in METRICS.items():
        better = "higher" if metric.higher_is_better else "lower"
        bound = "" if metric.mean_of else "; no mean over examples, so that no bound for other test examples is given"
        found.append({"name": name, "about": f"{metric.words}, {better} is better: {', '.join(metric.tasks)}{bound}"})
    own = "your own: function(targets, outputs) of NumPy arrays, one number; {name: ..., higher_is_better: true}"
    return [*found, {"name": OWN_METRICS.user_code, "about": own}]


def _models() -> list[dict[str, Any]]:
    found = []
    for name, builder in MODELS.items():
        options = [p for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
        about = (inspect.getdoc(builder) or "").splitlines()[0]
        found.append(
            {"name": name, "about": about, "options": ", ".join(f"{p.name}: {_words(p.default)}" for p in options)}
        )
    own = "your own: called with its options, and with input_shape, num_outputs and num_tokens (texts) if it takes them"
    return [*found, {"name": MODELS.user_code, "about": own}]


def _fields(cls: type) -> str:
    """Options with their defaults; where there are a few values, the others follow."""
    if not dataclasses.is_dataclass(cls):
        return ""
    hints = typing.get_type_hints(cls)
    return ", ".join(f"{field.name}: {_values(hints[field.name], field.default)}" for field in dataclasses.fields(cls))


def _values(hint: Any, default: Any) -> str:
    others = [value for value in typing.get_args(hint) if value != default] if _is_literal(hint) else []
    return " | ".join(map(_words, (default, *others)))


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Literal


def _words(default: Any) -> str:
    """A default as it is written in a study file."""
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return str(list(default) if isinstance(default, tuple) else default)


# ---- one of them, explained


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of a component or a network.

    Args:
        name: as a file has it.
        kind: of its values: `number`, `a | b`.
        default: as it is written in a file.
        rule: what its values must be; empty where any of the kind will do.
        about: in words.
    """

    name: str
    kind: str
    default: str
    rule: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What is to know of something that a study file may name.

    Args:
        what: `selector`, `order`, `transition`, `metric`, `model` or `data`.
        name: of it.
        about: what it does, in paragraphs.
        when: to use it; empty where it does not say.
        cost: what it costs; likewise.
        source: where it was published; likewise.
        options: of it.
        lines: of a study file that names it.
    """

    what: str
    name: str
    about: tuple[str, ...]
    when: str = ""
    cost: str = ""
    source: str = ""
    options: tuple[Option, ...] = ()
    lines: tuple[str, ...] = ()


def explain(what: str, name: str) -> Explanation:
    """What is to know of one thing.

    Args:
        what: as of `rows`.
        name: of it, or `package.module:name` of a user's own.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    if what == "metric":
        return _metric(name)
    if what == "data":
        return _data(name)
    found = COMPONENTS.get(what, MODELS).load(name)
    told = _sections(_own_doc(found))
    options = tuple(_options(found) if inspect.isclass(found) else _arguments(found))
    return Explanation(
        what=what,
        name=name,
        about=told.pop("about"),
        **{key: " ".join(words) for key, words in told.items() if key != "args"},
        options=options,
        lines=tuple(_lines(what, name, options)),
    )


def _lines(what: str, name: str, options: tuple[Option, ...]) -> Iterator[str]:
    """Of a study file; an option at its default, which is as good as none."""
    if what == "model":
        yield "task:"
        shown = "".join(f", {option.name}: {option.default}" for option in options[:2] if option.default)
        yield f"  model: {{name: {_quoted(name)}{shown}}}"
        return
    neutral = COMPONENTS[what].names()[0]
    yield "space:"
    yield f"  {what}: {name if name == neutral else f'{{choice: [{neutral}, {_quoted(name)}]}}'}"
    if options and ":" not in name:
        yield f"  {name}.{options[0].name}: {options[0].default}"


def _quoted(name: str) -> str:
    return f'"{name}"' if ":" in name else name


def _metric(name: str) -> Explanation:
    _refuse_unknown("metric", name, METRICS)
    metric = METRICS[name]
    about = [f"{metric.words}; {'higher' if metric.higher_is_better else 'lower'} is better."]
    others = f"a bound for other test examples is given, as it is a mean over {metric.mean_of}"
    about.append(f"Beside the verdict {others if metric.mean_of else 'no bound for other test examples is given'}.")
    if metric.is_share:
        about.append("1 is the best that it can be: what it is short of 1 is the error.")
    return Explanation(
        what="metric",
        name=name,
        about=tuple(about),
        when=f"tasks of the kind {' or '.join(metric.tasks)}.",
        lines=("task:", f"  metric: {name}"),
    )


def _data(name: str) -> Explanation:
    _refuse_unknown("data", name, DATA)
    source = _quoted(name if name in DATASETS else name.partition(",")[0])
    lines = ("task:", f"  data: {{source: {source}}}")
    return Explanation(what="data", name=name, about=(DATA[name],), lines=lines)


def _refuse_unknown(what: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise ConfigError(must(what, f"one of {', '.join(known)}", name, did_you_mean(name, known)))


# ---- what a docstring says

_TOLD = ("When", "Cost", "Source")
_CODE = ("Network", "Nested", "Looks at", "Order of the examples", "Departures from the paper", "Args", "Raises")
_SECTION = re.compile(rf"^({'|'.join((*_TOLD, *_CODE))}):(?: |$)")
_POINTER = re.compile(r" ?See `\w+\.[\w.]+`\.|: see `\w+\.[\w.]+`")  # to code, which a command's reader has not open
_INLINE_SOURCE = re.compile(r" Source: (.*)$")


def _own_doc(thing: Any) -> str:
    """The docstring of a class or function itself, not of what it comes from."""
    return (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""


def _sections(doc: str) -> dict[str, tuple[str, ...]]:
    """Paragraphs under `about`, and the sections that are told, in lower case; the others are for readers of code."""
    found: dict[str, list[str]] = {"about": []}
    into: list[str] | None = found["about"]
    is_new = True
    for line in inspect.cleandoc(doc).splitlines():
        section = _SECTION.match(line)
        if section is not None:
            into = found.setdefault(section[1].lower(), []) if section[1] in _TOLD else None
            line, is_new = line[section.end() :], True
        if not line.strip():
            into, is_new = found["about"], True
        elif into is not None and not line.startswith(" "):
            into += [line.strip()] if is_new else []
            into[-1:] = into[-1:] if is_new else [f"{into[-1]} {line.strip()}"]
            is_new = False
    return {key: tuple(_plain(words)) for key, words in _with_inline_source(found).items()}


def _with_inline_source(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """A source that stands at the end of a paragraph, as one of its own."""
    for i, paragraph in enumerate(found["about"]):
        if (source := _INLINE_SOURCE.search(paragraph)) is not None:
            found["about"][i] = paragraph[: source.start()]
            found.setdefault("source", []).append(source[1])
    return found


def _plain(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        text = _POINTER.sub("", paragraph).strip()
        yield text if text.endswith((".", ":")) else f"{text}."


def _options(cls: type) -> Iterator[Option]:
    hints, told = typing.get_type_hints(cls), _told_of_options(cls)
    for field in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ():
        rule = field.metadata.get("rule")
        yield Option(
            name=field.name,
            kind=_kind(hints[field.name]),
            default=_words(field.default),
            rule=rule.text if rule is not None else "",
            about=told.get(field.name, field.metadata.get("doc", "")),
        )


def _arguments(function: Any) -> Iterator[Option]:
    """Of a function that builds a network: those that have to be named, as a file names them."""
    told, hints = _args_of(function), typing.get_type_hints(function)
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY:
            about, default = told.get(one.name, ""), "" if one.default is one.empty else _words(one.default)
            yield Option(name=one.name, kind=_kind(hints.get(one.name)), default=default, rule="", about=about)


def _told_of_options(cls: type) -> dict[str, str]:
    """What the classes that it comes from say of each option; the nearest one that says more than where to look."""
    told: dict[str, str] = {}
    for base in cls.__mro__:
        for name, about in _args_of(base).items():
            if not about.startswith(("see `", "likewise")):
                told.setdefault(name, about)
    return told


def _args_of(thing: Any) -> dict[str, str]:
    """Names and words of the section `Args`."""
    lines = inspect.cleandoc(_own_doc(thing)).splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith("Args:")), None)
    found: dict[str, str] = {}
    name = ""
    for line in [] if begin is None else lines[begin + 1 :]:
        entry = re.match(r"    (\w+): (.*)", line)
        if entry is not None:
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("        "):
            found[name] += f" {line.strip()}"
        elif line.strip() and not line.startswith(" "):
            break
    return {name: _POINTER.sub("", about) for name, about in found.items()}


_KINDS = {float: "number", int: "whole number", bool: "true | false", str: "text", type(None): "null"}


def _kind(hint: Any) -> str:
    """The values of a type in words: `number`, `greedy | stochastic`, `list`."""
    if _is_literal(hint):
        return " | ".join(map(_words, typing.get_args(hint)))
    if hint in _KINDS:
        return _KINDS[hint]
    parts = typing.get_args(hint)
    is_union = typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType"
    return " | ".join(map(_kind, parts)) if is_union else "list"
