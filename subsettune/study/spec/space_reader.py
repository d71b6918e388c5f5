"""Reading what is written under `space:` in a study file into coordinates; `space` says what may be written.

Every mistake is found before any is told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from subsettune import config
from subsettune.config import FrozenDict, Path, must, unknown_key
from subsettune.errors import ConfigError, Mistake, did_you_mean, nearest
from subsettune.policy import FULL, OWN, PRUNE, SOUP, SUBSET
from subsettune.study.spec.coordinate import SELECTION_ONLY, Coordinate, Scale, implied, kind_of
from subsettune.study.spec.kinds import KINDS, ORDER, OWNING, TRANSITION
from subsettune.study.spec.point_to_policy import COORDINATES

_SCALES = ("log", "uniform", "int", "choice")
_NAMES = ("arm", *OWNING)
_ALWAYS = ("arm", "budget", "switch", "subset_share", "q")
_NO_PRIOR = (
    "How much pre-training is enough follows no one law of the data's size: in benchmarks/pretraining_threshold.py it "
    "depends on the training error that is asked for. Give the range alone."
)
_ANY_OWNER = f"a {', '.join([*OWNING][:-1])} or {[*OWNING][-1]}, or of {SOUP}"
_PERCENT = 100
_LEAST_PERCENT = 2


def read(
    raw: Mapping[Any, Any], recipe_keys: tuple[str, ...] | None, known: Mapping[str, Iterable[str]]
) -> tuple[Coordinate, ...]:
    """The coordinates, each after those that it depends on; arguments and errors as of `Space.from_mapping`."""
    return _Reader(recipe_keys, known).read(raw)


def _fraction(name: str, value: float) -> str | None:
    if 0 < value < 1 or (value == 1 and name != "switch"):
        return None
    rule = "in (0, 1)" if name == "switch" else "in (0, 1]"
    advice = "It is a fraction of the whole."
    if _LEAST_PERCENT <= value <= _PERCENT:  # below it a slip is likelier than a percentage
        advice = f"It is a fraction, not a percentage: write {value / _PERCENT:g}."
    return must(name, rule, value, advice)


def _bounded(rule: config.Rule) -> Callable[[str, float], str | None]:
    advice = rule.advice if isinstance(rule.advice, str) else rule.advice()
    return lambda name, value: None if rule.holds(value) else must(name, rule.text, value, advice)


def _whole(name: str, value: float) -> str | None:
    if isinstance(value, int) and value >= 1:
        return None
    return must(name, "a whole number, 1 or more", value, "It counts the subsets before the full data.")


def _growing(name: str, value: float) -> str | None:
    return None if value > 1 else must(name, "above 1", value, "Each subset is so many times as large as the last.")


def _soup(name: str, value: float) -> str | None:
    advice = "It is a share of the compute before the switch; 0 is no soup."
    return None if 0 <= value < 1 else must(name, "in [0, 1)", value, advice)


def _between(name: str, value: float) -> str | None:
    advice = "It is a share of the compute after the switch; 0 prunes all layers at once."
    return None if 0 <= value < 1 else must(name, "in [0, 1)", value, advice)


_NUMBERS: dict[str, Callable[[str, float], str | None]] = {
    "budget": _fraction,
    "switch": _fraction,
    "subset_share": _fraction,
    "q": _bounded(config.POSITIVE),
    "steps": _whole,
    "growth": _growing,
    "reselect": _bounded(config.POSITIVE),
    SOUP: _soup,
    f"{SOUP}.share": _fraction,
    f"{PRUNE}.between": _between,
}


class _Reader:
    """Reads a mapping and gathers every mistake on the way."""

    def __init__(self, recipe_keys: tuple[str, ...] | None, known: Mapping[str, Iterable[str]]) -> None:
        self._recipe_keys = recipe_keys
        self._known = {name: tuple(names) for name, names in known.items()} | {"arm": (FULL, SUBSET)}
        self._mistakes: list[Mistake] = []
        self._axes: dict[str, Coordinate] = {}
        self._seen: set[str] = set()

    def read(self, raw: Mapping[Any, Any]) -> tuple[Coordinate, ...]:
        for key, value in raw.items():
            if self._is_known(key):
                self._seen.add(key)
                self._read_axis(key, value)
            elif (meant := nearest(key, COORDINATES)) is not None:
                self._seen.add(meant)  # a mistyped key is one mistake, not two
        self._complete_arm()
        for name, axis in self._axes.items():
            self._axes[name] = replace(axis, when=FrozenDict(implied(name, self._axes) | axis.when))
        self._check_sets()
        self._check_whole()
        self._check_conditions()
        if self._mistakes:
            raise ConfigError(tuple(self._mistakes))
        return self._ordered()

    def _say(self, path: Path, message: str) -> None:
        self._mistakes.append(Mistake(path, message))

    def _is_known(self, key: Any) -> bool:
        name = str(key)
        if not isinstance(key, str):
            self._say((name,), must("a key of space", "a text", key))
            return False
        if key in COORDINATES or "." in key:
            return True
        if key == "epochs":
            self._say((key,), "epochs cannot be searched: the budget decides how long a policy trains. Remove it.")
            return False
        if self._recipe_keys is None:
            if nearest(key, COORDINATES, likeness=0.8) is not None:  # else it may be a key of some recipe
                self._say((key,), unknown_key(key, COORDINATES))
                return False
            return True
        if key not in self._recipe_keys:
            self._say((key,), unknown_key(key, (*COORDINATES, *self._recipe_keys)))
            return False
        return True

    def _read_axis(self, name: str, raw: Any) -> None:
        if not isinstance(raw, Mapping):
            axis = self._choices(name, "fixed", [raw], (name,))
            when: dict[str, Any] | None = {}
        else:
            axis = self._read_range(name, raw)
            when = self._read_when(name, raw.get("when", {}))
        if axis is not None and when is not None:
            self._axes[name] = replace(axis, when=FrozenDict(when))

    def _read_range(self, name: str, raw: Mapping[Any, Any]) -> Coordinate | None:
        extra = [key for key in raw if key not in (*_SCALES, "when")]
        for key in extra:
            is_prior = (name, key) == ("switch", "prior")
            message = must("prior", "left out", raw[key], _NO_PRIOR) if is_prior else ""
            self._say((name, str(key)), message or unknown_key(key, (*_SCALES, "when")))
        if extra:
            return None
        scales = [key for key in _SCALES if key in raw]
        is_log_int = scales == ["log", "int"] and isinstance(raw["log"], bool)
        if len(scales) != 1 and not is_log_int:
            rule = "a value or one of {log: [lo, hi]}, {uniform: [lo, hi]}, {int: [lo, hi]}, {choice: [...]}"
            self._say((name,), must(name, rule, dict(raw)))
            return None
        if scales == ["choice"]:
            return self._read_choice(name, raw["choice"])
        scale = "int" if is_log_int else scales[0]
        return self._read_ends(name, scale, raw[scale], log=scale == "log" or bool(raw.get("log", False)))

    def _read_choice(self, name: str, raw: Any) -> Coordinate | None:
        if not isinstance(raw, list | tuple) or not raw:
            self._say((name, "choice"), must(f"choice of {name}", "a list of at least one value", raw))
            return None
        return self._choices(name, "choice", list(raw), (name, "choice"))

    def _choices(self, name: str, kind: Scale, raw: list[Any], path: Path) -> Coordinate | None:
        before = len(self._mistakes)
        values = tuple(config.convert(Any, value, (name,), []) for value in raw)
        for value in values:
            self._check_value(name, value, path)
        if len({config.canonical_json(value) for value in values}) < len(values):
            self._say(path, must(f"choice of {name}", "free of repetition", list(raw)))
        if len(self._mistakes) > before:
            return None
        return Coordinate(name=name, kind=kind, values=values)

    def _read_ends(self, name: str, scale: str, raw: Any, *, log: bool) -> Coordinate | None:
        path = (name, scale)
        number = int if scale == "int" else int | float
        is_pair = isinstance(raw, list | tuple) and len(raw) == 2
        if not is_pair or any(isinstance(end, bool) or not isinstance(end, number) for end in raw):
            self._say(path, must(f"{scale} of {name}", f"[lo, hi], two {'whole ' * (scale == 'int')}numbers", raw))
            return None
        if name in _NAMES or (name == "steps" and scale != "int"):
            rule = "a name or {choice: [names]}" if name in _NAMES else "a whole number or {int: [lo, hi]}"
            self._say((name,), must(name, rule, {scale: list(raw)}))
            return None
        before = len(self._mistakes)
        lo, hi = raw
        if not (math.isfinite(lo) and math.isfinite(hi)) or lo > hi:
            self._say(path, must(f"{scale} of {name}", "[lo, hi] with lo <= hi", list(raw), "Swap the two ends."))
        elif log and lo <= 0:
            advice = "A logarithmic scale has no zero; use uniform, or a small positive lower end."
            self._say(path, must(f"lower end of {name}", "positive", lo, advice))
        for end in (end for end in dict.fromkeys(raw) if math.isfinite(end)):
            self._check_value(name, end, path)
        if len(self._mistakes) > before:
            return None
        kind: Scale = "int" if scale == "int" else "float"
        ends = (int(lo), int(hi)) if kind == "int" else (float(lo), float(hi))
        return Coordinate(name=name, kind=kind, lo=ends[0], hi=ends[1], log=log)

    def _check_value(self, name: str, value: Any, path: Path) -> None:
        if name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                self._say(path, must(name, "a finite number", value))
            elif (message := _NUMBERS[name](name, value)) is not None:
                self._say(path, message)
        elif name in _NAMES:
            self._check_name(name, value, path)
        elif isinstance(value, Mapping) or value is None or (isinstance(value, float) and not math.isfinite(value)):
            self._say(path, must(name, "a finite number, a text, true, false or a list of these", value))

    def _check_name(self, name: str, value: Any, path: Path) -> None:
        names = self._known.get(name)
        if not isinstance(value, str):
            self._say(path, must(name, "a name", value))
        elif names is not None and value not in names and not (":" in value and name != "arm"):
            own = "" if name == "arm" else " or package.module:name"
            advice = f"Known: {', '.join(sorted(names))}. {did_you_mean(value, names)}"
            self._say(path, must(name, f"a known {name}{own}", value, advice))

    def _read_when(self, name: str, raw: Any) -> dict[str, Any] | None:
        if not isinstance(raw, Mapping):
            rule = "a mapping of other keys to the values with which this one exists"
            self._say((name, "when"), must(f"when of {name}", rule, raw))
            return None
        return {str(k): tuple(v) if isinstance(v, list | tuple) else (v,) for k, v in raw.items()}

    def _complete_arm(self) -> None:
        """Put `arm` in, with the full arm first: it is the control and always part of the space."""
        if "arm" in self._seen and "arm" not in self._axes:
            return
        given = self._axes["arm"].values if "arm" in self._axes else (FULL, SUBSET)
        values = (FULL,) if given == (FULL,) else (FULL, SUBSET)
        when = self._axes["arm"].when if "arm" in self._axes else FrozenDict()
        self._axes["arm"] = Coordinate(name="arm", kind="choice", values=values, when=when)

    def _check_sets(self) -> None:
        """What has to be given together, or must not be."""
        if "budget" not in self._seen:
            self._say((), "key 'budget' is missing. Write e.g. budget: {log: [0.02, 0.6]}.")
        if "arm" in self._axes and SUBSET not in self._axes["arm"].values:
            return
        if {"subset_share", "q"} <= self._seen:
            self._say(("q",), "q and subset_share both fix the size of the subset. Remove one of them.")
        if not {"subset_share", "q"} & self._seen:
            example = "Write e.g. subset_share: {log: [0.02, 0.5]}, or arm: full to search shorter schedules only."
            self._say((), f"subset_share or q is missing, and the arm 'subset' needs one. {example}")
        if "switch" not in self._seen:
            example = "Write e.g. switch: {uniform: [0.05, 0.9]}, or arm: full to search shorter schedules only."
            self._say((), f"key 'switch' is missing, and the arm 'subset' needs it. {example}")

    def _check_whole(self) -> None:
        """A subset of all data is there to try something else by."""
        share, soup = self._axes.get("subset_share"), self._axes.get(SOUP)
        if share is None or any(value != 1 for value in share.ends) or SUBSET not in self._axes["arm"].values:
            return
        others = self._names_of(ORDER.name) - {ORDER.neutral} or PRUNE in self._names_of(TRANSITION.name)
        if not others and not (soup and max(soup.ends) > 0):
            advice = "Add a smaller share, an order, a soup or transition: prune; or write arm: full."
            message = "subset_share of 1 leaves the arm 'subset' nothing but plain training, which is the arm 'full'."
            self._say(("subset_share",), f"{message} {advice}")

    def _names_of(self, kind: str) -> set[str]:
        return set(self._axes[kind].values) if kind in self._axes else set()

    def _check_conditions(self) -> None:
        for name, axis in self._axes.items():
            usual = implied(name, self._axes)
            for key, allowed in axis.when.items():
                if usual.get(key) != allowed:
                    self._check_condition(name, key, allowed)
            if "." in name:
                self._check_option(name)
            elif name in SELECTION_ONLY and usual.get("subset_share") == ():
                advice = f"Add a smaller choice, or remove {name}."
                self._say((name,), f"{name} has no use with a subset_share of 1, which leaves nothing out. {advice}")
            if name == "growth" and "steps" not in self._seen:
                self._say((name,), "growth has no use without steps. Add e.g. steps: {int: [1, 3]}, or remove growth.")

    def _check_option(self, name: str) -> None:
        """`OWNER.OPTION` needs its owner in the space."""
        owner = name.rpartition(".")[0]
        if owner == OWN:
            return  # the task knows them
        if owner == SOUP:
            self._check_soup(name)
        elif kind_of(owner, self._axes) is None and all(kind in self._axes for kind in self._seen & OWNING.keys()):
            self._say((name,), self._unowned(name, owner))

    def _check_soup(self, name: str) -> None:
        soup = self._axes.get(SOUP)
        if soup is None and SOUP in self._seen:
            return  # its own mistake is told
        if soup is None or max(soup.ends) == 0:
            advice = f"Add e.g. soup: {{choice: [0, 0.3]}}, or remove {name}."
            self._say((name,), f"{name} has no use without a soup above 0 in the space. {advice}")

    def _unowned(self, name: str, owner: str) -> str:
        """What to do about an option whose owner is not in the space."""
        known = {kind: self._known.get(kind, ()) for kind in OWNING}
        kind = next((kind for kind, names in known.items() if owner in names), None)
        everyone = [*itertools.chain(*known.values()), SOUP]
        if kind is None and ":" not in owner and len(everyone) > 1:
            return must(name, f"an option of {_ANY_OWNER}", owner, did_you_mean(owner, everyone))
        kind = kind or next(iter(OWNING))
        have = self._axes[kind].values if kind in self._axes else (KINDS[kind].neutral,)
        advice = f"{KINDS[kind].plural.capitalize()} of this space: {', '.join(have)}. Add {owner}, or remove {name}."
        return f"{name} has no use without {kind}: {owner} in the space. {advice}"

    def _check_condition(self, name: str, key: str, allowed: tuple[Any, ...]) -> None:
        path = (name, "when", key)
        if name in _ALWAYS:
            self._say(path, f"{name} cannot be conditional: every policy of its arm needs it.")
        elif key == name:
            self._say(path, f"{name} cannot depend on itself.")
        elif key not in self._axes:
            if key not in self._seen:
                names = sorted({*self._seen, "arm"})
                guess = f"{did_you_mean(key, names)} ".lstrip()
                self._say(path, f"unknown key. {guess}Keys of this space: {', '.join(names)}.")
        elif not self._axes[key].values:
            self._say(path, f"{key} is a range; a condition needs a choice or a fixed value.")
        else:
            have = self._axes[key].values
            for value in allowed:
                if value not in have:
                    rule = f"one of {', '.join(map(str, have))}"
                    self._say(path, must(f"{key} in when of {name}", rule, value, did_you_mean(value, have)))

    def _ordered(self) -> tuple[Coordinate, ...]:
        """Parents before children, otherwise the order of the file."""
        done: dict[str, Coordinate] = {name: self._axes[name] for name in ("arm", "budget")}
        waiting = {name: axis for name, axis in self._axes.items() if name not in done}
        while waiting:
            ready = [n for n, axis in waiting.items() if all(k in done or k not in self._axes for k in axis.when)]
            if not ready:
                names = ", ".join(sorted(waiting))
                raise ConfigError((Mistake((), f"the conditions of {names} depend on each other in a circle."),))
            for name in ready:
                done[name] = waiting.pop(name)
        return tuple(done.values())
