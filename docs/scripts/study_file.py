"""Writes the reference in docs/study_file.md: every key of a study file, from the classes that read it.

    python docs/scripts/study_file.py

It stands between two marks of the page; the prose around them is written by hand. An example is one of
`EXAMPLES`, or the first use of a key in `search_spaces/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any

import described
from described import Setting, written
from doc_pages import PAGES, ROOT, table, write_between

from subsettune.errors import ConfigError
from subsettune.policy import Soup
from subsettune.registry import MODELS, ORDERS, SCHEDULES, SELECTORS, TRANSITIONS, Registry
from subsettune.study.spec.definition import Study, StudySettings
from subsettune.study.spec.point_to_policy import COORDINATES
from subsettune.study.spec.space import Space
from subsettune.study.spec.yaml_file import read_yaml
from subsettune.task import Task

PAGE = PAGES / "study_file.md"
NOT_WRITTEN = {"task.own_metric": "metric", "task.model.options": "name"}  # by what a file says the same
OF_METRIC = "task.metric"
HEAD = ("key", "what it may be", "default", "meaning, and an example")
EXAMPLES: Mapping[str, Any] = {
    "task.data.label": "price",
    "task.data.features": ["age", "income"],
    "task.data.options": {"root": "photos"},
    "task.data.categorical": ["zip"],
    "task.data.embeddings": "clip",
    "task.data.layout": "series",
    "task.data.exclude": ["id", "note"],
    "task.data.impute": "median",
    "task.data.dates": "cyclic",
    "task.data.date_formats": {"born": "%d.%m.%Y"},
    "task.data.resize": [64, 48],
    "task.data.color": "grey",
    "task.data.csv": {"separator": ";"},
    "task.data.csv.separator": ";",
    "task.data.csv.decimal": ",",
    "task.data.csv.encoding": "latin-1",
    "task.split.by": "patient",
    "task.split.column": "part",
    "task.split.time": "sold",
    "task.recipe.schedule_options": {"warmup": 0.05},
    "task.recipe.nesterov": True,
    "task.recipe.optimizer_options": {"betas": [0.9, 0.95]},
    "task.recipe.grad_clip": 1.0,
    "task.recipe.label_smoothing": 0.1,
    "task.recipe.precision": "auto",
    "task.recipe.class_weights": "balanced",
    "task.recipe.own": {"dropout": 0.1},
    "task.recipe.ema": 0.999,
    "task.recipe.augment.torchvision": [{"name": "RandomRotation", "degrees": 10}],
    "task.recipe.augment.function": "mine:shift",
    "task.recipe.augment.options": {"scale": 0.1},
    "task.distortion": {"flip_labels": 0.3},
    "task.distortion.flip_labels": 0.3,
    "task.distortion.repeat_share": 0.05,
    "task.distortion.repeat_times": 20,
    "task.distortion.seed": 1,
    "task.kind": "multilabel",
    "task.loss": "goals:focal",
    "task.positive": "fraud",
    "task.train": "mine:train",
    "task.train_options": {"width": 64},
    "task.examples": 50_000,
    "task.validation_examples": 5_000,
    "task.test_examples": 10_000,
    "task.flops_per_example": {"forward": 1_200_000, "backward": 2_400_000},
    "task.flops_per_example.forward": 1_200_000,
    "task.flops_per_example.backward": 2_400_000,
    "task.outputs": 10,
    "task.parameters": 21_840,
    "task.version": "2026-11",
    "space.q": {"log": [1, 30]},
    "space.growth": 3,
    "space.reselect": {"log": [0.5, 4], "when": {"selector": "random"}},
    "study.soup_processes": 4,
    "study.max_seeds": 15,
    "study.candidates": 6,
    "study.sampler": "tpe",
    "study.time_limit_s": 3600,
    "study.warm_start": ["monday"],
    "study.reference_looks": 30,
    "study.checkpoint_every_s": 10,
    "study.silence_limit_s": 1800,
}
# What coordinates mean; how long they may be, and which there are, the reader of spaces says.
MEANINGS: Mapping[str, str] = {
    "arm": "kinds of policies that are searched: `full`, a shorter schedule on all data, always one of them, or "
    "`subset`, a subset first.",
    "budget": "what a policy may spend, selection included, as a share of the reference's compute.",
    "switch": "share of the budget that is spent before the policy moves to all data.",
    "subset_share": "size of the subset, as a share of the training examples. 1 is all data, to try an order, a "
    "transition or a soup without a subset.",
    "q": "in place of `subset_share`: its size as the overdetermination ratio K*M/P of K examples, M output units and "
    "P parameters.",
    "steps": "subsets before all data, each larger than the one before.",
    "growth": "how many times as large each of `steps` is as the one before; 2 where it is not given.",
    "reselect": "passes after which a subset is chosen anew.",
    "selector": "who chooses the examples of a subset; `random` where it is not given.",
    "order": "which examples of a pool come next within a phase; `uniform` where it is not given.",
    "transition": "what happens to weights and optimizer when the policy moves to all data; `keep` where it is not "
    "given.",
    "soup": "share of the compute before the switch that workers on disjoint shards spend first.",
}
ALWAYS = {"budget": "required", "switch": "required with `subset`", "subset_share": "this or `q` with `subset`"}
SPACE_ONLY = {  # options of a space that spread a component over phases, or size its pool: fields of no class
    "soup.share": ("number, in (0, 1]", "as the subset", "share of the data that the workers train on."),
    "prune.between": (
        "number, in [0, 1)",
        "`0`",
        "share of the compute after the switch that is spent before the last layer is pruned: each layer is pruned in "
        "a phase of its own.",
    ),
}


def main() -> None:
    """Write the page."""
    write_between(PAGE, "reference", reference())
    write_between(PAGE, "files", files())


def files() -> str:
    """A row for each study file that comes with the project, with what it says of itself."""
    rows = []
    for path in sorted((ROOT / "search_spaces").glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        said = [line.removeprefix("#").strip() for line in takewhile(lambda line: "subsettune tune" not in line, lines)]
        about = " ".join(line for line in said if not line.startswith("python "))
        rows.append((f"[`{path.name}`](../search_spaces/{path.name})", about))
    return table(("file", "what to expect"), rows)


def reference() -> str:
    """The generated part of the page."""
    examples = _Examples()
    parts = [
        *_classes("task", Task, "Task", examples),
        *_models(),
        *_schedules(),
        *_space(examples),
        *_components(examples),
        *_classes("study", StudySettings, "Study", examples),
    ]
    examples.check()
    return "\n\n".join(parts)


def _classes(path: str, cls: type, title: str, examples: _Examples) -> Iterator[str]:
    """The table of a class, and of those that its keys have, each with its heading."""
    settings = [setting for setting in described.settings_of(cls) if f"{path}.{setting.name}" not in NOT_WRITTEN]
    level = min(4, 2 + path.count("."))
    yield f"{'#' * level} {title}"
    rows = [_row(setting.name, setting, examples.of(f"{path}.{setting.name}")) for setting in settings]
    yield table(HEAD, rows)
    for setting in settings:
        if setting.part is not None and setting.part is not cls:
            inner = f"{path}.{setting.name}"
            yield from _classes(inner, setting.part, f"`{inner}`", examples)


def _row(name: str, setting: Setting, example: str | None) -> tuple[str, ...]:
    shown = setting.meaning if example is None else f"{setting.meaning} `{example}`"
    default = setting.default if setting.default == described.REQUIRED else f"`{setting.default}`"
    return f"`{name}`", setting.values, default, shown


def _models() -> Iterator[str]:
    yield "### Networks"
    yield "All other keys of `task.model` are options of the network. Of your own (`module:function`) its arguments."
    rows: list[tuple[str, ...]] = []
    for name, builder in MODELS.items():
        rows.append((f"**`{name}`**", "", "", described.first_sentence(builder)))
        rows += [_row(setting.name, setting, None) for setting in described.options_of(builder)]
    yield table(HEAD, rows)


def _schedules() -> Iterator[str]:
    yield "### Schedules"
    yield "Options stand in `schedule_options`. They go by the share of the compute that is used."
    yield table(HEAD, list(_of_registry(SCHEDULES, None)))


def _of_registry(registry: Registry, examples: _Examples | None) -> Iterator[tuple[str, ...]]:
    """A row for each member of a registry, and one for each of its options."""
    for name, cls in registry.items():
        if registry.code_of(name) is not None:
            continue  # of a package that happens to be installed here
        yield f"**`{name}`**", "", "", getattr(cls, "summary", "") or described.first_sentence(cls)
        for setting in described.settings_of(cls) if hasattr(cls, "__dataclass_fields__") else ():
            key = setting.name if examples is None else f"{name}.{setting.name}"
            yield _row(key, setting, None if examples is None else examples.found(f"space.{key}"))
        for key, (values, default, meaning) in SPACE_ONLY.items() if examples is not None else ():
            if key.startswith(f"{name}."):
                yield f"`{key}`", values, default, meaning


def _space(examples: _Examples) -> Iterator[str]:
    assert tuple(MEANINGS) == COORDINATES, "coordinates of the space and MEANINGS differ"
    yield "## Space"
    rows = []
    for name in COORDINATES:
        setting = Setting(name=name, values=_rule(name), default=ALWAYS.get(name, ""), meaning=MEANINGS[name])
        key, values, _, meaning = _row(name, setting, examples.of(f"space.{name}"))
        rows.append((key, values, ALWAYS.get(name, ""), meaning))
    rows.append(("a key of `recipe`", "as there", "the recipe's", "searched like any other. `lr: {log: [0.02, 0.5]}`"))
    rows.append(("`own.NAME`", "", "the recipe's", "a hyperparameter of a training function: `task.recipe.own`."))
    yield table(HEAD, rows)


def _rule(name: str) -> str:
    """What a coordinate must be, as the reader of spaces says of a value that none may have."""
    if name == "arm":
        return "`full`, `subset`"
    impossible: Any = 0 if name in ("selector", "order", "transition") else -1
    try:
        Space.from_mapping({"budget": 0.5, "switch": 0.5, "subset_share": 0.5, "steps": 1, name: impossible})
    except ConfigError as error:
        found = (re.search(rf"^{name} must be (.+?), got", mistake.message) for mistake in error.mistakes)
        return "name" if impossible == 0 else f"number, {next(match[1] for match in found if match)}"
    raise AssertionError(f"{name}: {impossible!r} is accepted")


def _components(examples: _Examples) -> Iterator[str]:
    for registry, title in ((SELECTORS, "Selectors"), (ORDERS, "Orders"), (TRANSITIONS, "Transitions")):
        yield f"### {title}"
        yield table(HEAD, list(_of_registry(registry, examples)))
    yield "### Soup"
    settings = (
        _row(f"soup.{one.name}", one, examples.found(f"space.soup.{one.name}")) for one in described.settings_of(Soup)
    )
    values, default, meaning = SPACE_ONLY["soup.share"]
    yield table(HEAD, [*settings, ("`soup.share`", values, default, meaning)])


class _Examples:
    """Uses of keys: `EXAMPLES` first, then those of `search_spaces/`."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._asked: set[str] = set()
        files = sorted((ROOT / "search_spaces").glob("*.yaml"), key=lambda path: (path.stem != "digits", path.stem))
        for path in files:
            raw, _ = read_yaml(path)
            for key, value in _keys(raw, ""):
                self._found.setdefault(key, _written(key, value))

    def found(self, key: str) -> str | None:
        """The use of a key in a study file; None for none."""
        return self._found.get(key)

    def of(self, key: str) -> str:
        """An example of a key.

        Raises:
            AssertionError: there is none.
        """
        self._asked.add(key)
        assert key in EXAMPLES or key in self._found, f"{key} needs an example"
        return _written(key, EXAMPLES[key]) if key in EXAMPLES else self._found[key]

    def check(self) -> None:
        """Every example is of a key that there is."""
        strange = EXAMPLES.keys() - self._asked
        assert not strange, f"examples of what is no key: {sorted(strange)}"


def _keys(raw: Any, path: str) -> Iterator[tuple[str, Any]]:
    """All keys of plain data with their paths; ranges of a space are values."""
    for key, value in raw.items() if isinstance(raw, Mapping) else ():
        inner = f"{path}.{key}" if path else key
        yield inner, value
        if path != "space":
            yield from _keys(value, inner)


def _written(key: str, value: Any) -> str:
    return f"{_last(key)}: {_quoted(value)}"


def _last(key: str) -> str:
    """The key as it stands in its mapping: options of a space have a dot themselves."""
    return key.removeprefix("space.") if key.startswith("space.") else key.rpartition(".")[2]


def _quoted(value: Any) -> str:
    """As YAML: what would be read as something else in quotes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_quoted(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    needs = isinstance(value, str) and re.fullmatch(r"[\w./:+-]*[A-Za-z_/][\w./:+-]*", value) is None
    return f'"{value}"' if needs else written(value)


if __name__ == "__main__":
    assert Study.__dataclass_fields__.keys() == {"task", "space", "study"}
    main()
