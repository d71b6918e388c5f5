"""Numbers and policies in words: short, plain ASCII, the same in terminal, log, report and bundle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from subsettune.facts import TaskFacts
from subsettune.policy import OWN, Phase, Policy, Soup
from subsettune.registry import METRICS

NOTHING = "-"
FURTHEST_DIGITS = (-6, 8)  # behind the point, of a metric that is written without an exponent
_EXAMPLE_UNITS = ("ex", "k ex", "M ex", "G ex", "T ex", "P ex")
_FLOP_UNITS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP", "YFLOP")
_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def is_number(value: object) -> bool:
    """Whether `value` is a finite number; None, NaN and infinity are not."""
    return isinstance(value, int | float) and math.isfinite(value)


def _scaled(value: float | None, units: tuple[str, ...]) -> str:
    if value is None or not is_number(value):
        return NOTHING
    power = 0
    while power < len(units) - 1 and abs(value) / 1000**power >= 999.5:
        power += 1
    scaled = value / 1000**power
    digits = 0 if power == 0 or abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:.{digits}f} {units[power]}"


def flops_words(flops: float | None, unit: str = "FLOP") -> str:
    """FLOPs with a decimal prefix and three digits: `1.23 TFLOP`; or examples, where these are counted: `54.3 k ex`."""
    return _scaled(flops, _FLOP_UNITS if unit == "FLOP" else _EXAMPLE_UNITS)


def bytes_words(num_bytes: float | None) -> str:
    """Bytes with a decimal prefix and three digits: `45.1 MB`."""
    return _scaled(num_bytes, _BYTE_UNITS)


def seconds_words(seconds: float | None) -> str:
    """A duration at the precision a reader needs: `0.42 s`, `74.1 s`, `12 min 05 s`, `3 h 12 min`, `2 d 4 h`."""
    if seconds is None or not is_number(seconds):
        return NOTHING
    if seconds < 119.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def short_seconds_words(seconds: float | None) -> str:
    """A duration in at most 7 characters, for a column of a table: `0.42 s`, `725 s`, `12.3 h`."""
    if seconds is None or not is_number(seconds) or seconds < 99.95:
        return seconds_words(seconds)
    return f"{seconds:.0f} s" if seconds < 9999.5 else f"{seconds / 3600:.1f} h"


def passes_words(passes: float | None) -> str:
    """A count of passes: `30.0`, `1.83`, `0.041`."""
    if passes is None or not is_number(passes):
        return NOTHING
    if passes >= 1000:
        return f"{passes:,.0f}"
    return f"{passes:.1f}" if passes >= 10 else f"{passes:.2f}" if passes >= 0.1 else f"{passes:.2g}"


def share_words(share: float | None) -> str:
    """A fraction as per cent, three digits: `12.3 %`; beyond 1,000 % in whole numbers."""
    if share is None or not is_number(share):
        return NOTHING
    return f"{100 * share:,.0f} %" if abs(share) >= 9.995 else f"{100 * share:.3g} %"


def sure_words(confidence: float) -> str:
    """A confidence as per cent, with three digits of what it leaves to error: `95 %`, `98.75 %`, `99.99 %`."""
    error = float(f"{100 * (1 - confidence):.3g}")
    return f"{100 - error:.10g} %"


def saving_words(saving: float | None) -> str:
    """A saving as per cent with two digits; what is not quite everything never reads as everything."""
    if saving is None or not is_number(saving):
        return NOTHING
    return ">99 %" if 0.995 <= saving < 1 else f"{_two_digits(100 * saving)} %"


def cost_words(share: float | None) -> str:
    """Compute as a share of the recipe's, to stand beside what it saves: `28 %` and `72 %`, `98.5 %` and `1.5 %`."""
    if share is None or not is_number(share) or not 0 < share < 1:
        return share_words(share)
    return f"{100 * share:.{max(_decimals(100 * share), _decimals(100 - 100 * share))}f} %"


def share_saved_words(saving: float) -> str:
    """A saving in a sentence: `61 %`, `none`, or `none (12 % more)`."""
    if saving > 0:
        return saving_words(saving)
    return "none" if saving == 0 else f"none ({more_words(saving)})"


def more_words(saving: float) -> str:
    """A negative saving as what it costs more: `12 % more`."""
    return f"{_two_digits(-100 * saving)} % more"


def change_words(change: float | None) -> str:
    """A relative change as per cent with its sign and two digits: `+12 %`, `-4.7 %`."""
    if change is None or not is_number(change):
        return NOTHING
    return f"{'+' if change >= 0 else ''}{_two_digits(100 * change)} %"


def fraction_words(fraction: float | None) -> str:
    """A fraction with two digits: `0.18`."""
    return NOTHING if fraction is None or not is_number(fraction) else _two_digits(fraction)


def _two_digits(value: float) -> str:
    """`71`, `5.3`, `0.25`, `-1,200`, `0`."""
    rounded = float(f"{value:.1e}")
    return f"{rounded:,.{_decimals(rounded)}f}" if rounded else "0"


def _decimals(value: float) -> int:
    """Places behind the point of a number with two digits; none of 0."""
    rounded = float(f"{value:.1e}")
    return max(0, 1 - math.floor(math.log10(abs(rounded)))) if rounded else 0


def metric_words(value: float | None, tolerance: float, *, signed: bool = False) -> str:
    """A metric, or a difference of two, with two more digits than the tolerance has; as 1.23e-21 if far from 1."""
    if value is None or not is_number(value):
        return NOTHING
    digits = math.ceil(-math.log10(tolerance) - 1e-9) + 2
    form = f".{max(0, digits)}f"
    if not FURTHEST_DIGITS[0] <= digits <= FURTHEST_DIGITS[1]:
        form = f".{max(0, digits + math.floor(math.log10(abs(value))))}e" if value else ".0f"
    return format(value, f"+z{form}" if signed else form)  # z: a mean that rounding left below zero is no loss


def side_words(difference: float, tolerance: float) -> str:
    """A difference of two metrics in a sentence, whether more or less is better: `better by 0.0012`, `the same`.

    Args:
        difference: oriented: more is better.
        tolerance: as of `metric_words`.
    """
    shown = metric_words(abs(difference), tolerance)
    return f"{'better' if difference > 0 else 'worse'} by {shown}" if float(shown) else "the same"


def score_words(value: float | None) -> str:
    """A metric or a loss where no tolerance is at hand: four digits behind the point, or four in all far from 1."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if value == 0 or not is_number(value) or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def metric_name(name: str) -> str:
    """A metric as written in a sentence: `macro F1`; one of the user's own by the name of its function."""
    return METRICS[name].words if name in METRICS else name.rpartition(":")[2].replace("_", " ")


def sentence(text: str) -> str:
    """The text with its first letter in upper case, the others as they are."""
    return text[:1].upper() + text[1:]


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, word: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def describe(policy: Policy, facts: TaskFacts | None = None) -> str:
    """A policy in one line of words.

    `subset 12 % by kcenter for 30 % of 1.80 passes, then all data; lr 0.21, shrink_perturb 0.6`

    Args:
        policy: what to describe, or its JSON form.
        facts: of the task; adds the number of examples in each subset.
    """
    recipe = {**policy.recipe, **policy.recipe.get(OWN, {})}  # whose own hyperparameters have names of their own
    details = [_setting(name, value) for name, value in recipe.items() if name != OWN]
    details += [_transition(phase) for phase in policy.phases[1:] if phase.transition != "keep"]
    phases = f"{_phases(policy, facts)}{_order(policy)}"
    return "; ".join([phases, *([", ".join(details)] if details else [])])


def _phases(policy: Policy, facts: TaskFacts | None) -> str:
    total, phases = passes_words(policy.passes), _joined(policy.phases)
    if len(phases) == 1:
        return f"{_pool(phases[0], facts)} for {total} passes"
    if phases[0].active_soup is not None and len(phases) > 2:
        begin = f"{_pool(phases[0], facts)} for {_share_of(policy, phases[:1])} of {total} passes"
        subsets, last = phases[1:-1], phases[-1]
        if _is_growing(subsets, last):
            then = f"{_pool(subsets[0], facts)}{_growth(subsets)} for {_share_of(policy, subsets)}"
            return f"{begin}, then {then}, then {_pool(last, facts)}"
    *subsets, last = phases
    if len(subsets) == 1 or _is_growing(subsets, last):
        growth, share = _growth(subsets), _share_of(policy, subsets)
        return f"{_pool(subsets[0], facts)}{growth} for {share} of {total} passes, then {_pool(last, facts)}"
    parts = [f"{_pool(phase, facts)} for {passes_words(phase.passes)}" for phase in phases]
    return f"{', then '.join(parts)}: {total} passes in all"


def _joined(phases: Sequence[Phase]) -> list[Phase]:
    """The phases, with those that only go on with all data put together with the one before."""
    found: list[Phase] = []
    for phase in phases:
        goes_on = phase.is_full and phase.active_soup is None and phase.transition == "keep"
        if found and goes_on and found[-1].is_full and found[-1].active_soup is None:
            found[-1] = dataclasses.replace(found[-1], passes=found[-1].passes + phase.passes)
        else:
            found.append(phase)
    return found


def _share_of(policy: Policy, phases: Sequence[Phase]) -> str:
    return share_words(round(math.fsum(phase.passes for phase in phases) / policy.passes, 2))


def _order(policy: Policy) -> str:
    """`, in sift order (keep 0.5)`; empty for the uniform one. All phases of a policy that can run have the same."""
    found = {(phase.order, phase.order_options) for phase in policy.phases}
    words = sorted(f"{order} order{_bracketed(options)}" for order, options in found)
    return "" if words == ["uniform order"] else f", in {' and '.join(words)}"


def _bracketed(options: Mapping[str, Any]) -> str:
    return f" ({', '.join(_setting(name, value) for name, value in options.items())})" if options else ""


def _is_growing(subsets: Sequence[Phase], last: Phase) -> bool:
    """Whether the phases are one subset that grows or is chosen anew, and then all data."""
    shares = [phase.share for phase in subsets]
    kinds = {(p.selector, p.selector_options, p.soup, p.is_full) for p in subsets}
    return last.is_full and len(kinds) == 1 and not subsets[0].is_full and shares == sorted(shares)


def _growth(subsets: Sequence[Phase]) -> str:
    """`, growing to 40 % in 3 steps, chosen 6 times`; empty for one phase."""
    shares = list(dict.fromkeys(phase.share for phase in subsets))
    steps = f", growing to {share_words(shares[-1])} in {len(shares)} steps" if len(shares) > 1 else ""
    return steps + (f", chosen {len(subsets)} times" if len(subsets) > len(shares) else "")


def _pool(phase: Phase, facts: TaskFacts | None) -> str:
    if phase.is_full:
        return f"{_soup(phase.active_soup)}all data"
    size = "" if facts is None else f" ({phase.pool_size(facts.num_examples):,} examples)"
    options = "".join(f", {_setting(name, value)}" for name, value in phase.selector_options.items())
    q = "" if phase.q is None else f", Q {phase.q:.3g}"
    return f"{_soup(phase.active_soup)}subset {share_words(phase.share)}{size} by {phase.selector}{options}{q}"


def _soup(soup: Soup | None) -> str:
    """`soup of 10 workers (density 0.05, masks erk) on `; empty without one."""
    if soup is None:
        return ""
    usual = {"uncovered": Soup().uncovered, "rand_augment": 0}
    shown = {name: getattr(soup, name) for name in ("density", "masks", *usual)}
    words = ", ".join(_setting(name, value) for name, value in shown.items() if usual.get(name) != value)
    return f"soup of {soup.workers} worker{'s' * (soup.workers != 1)} ({words}) on "


def _transition(phase: Phase) -> str:
    options = dict(phase.transition_options)
    shrink = [f"{options.pop('shrink'):.3g}"] if is_number(options.get("shrink")) else []
    return " ".join([phase.transition, *shrink, *(_setting(name, value) for name, value in options.items())])


def value_words(value: object) -> str:
    """A setting's value: `0.412` of one that was drawn, with three digits; `0.9995` as it was written by a person."""
    if not isinstance(value, float):
        return str(value)
    written = f"{value:.5g}"
    return written if float(written) == value else f"{value:.3g}"


def _setting(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{name} {value_words(value)}"
    if isinstance(value, Mapping):
        return f"{name} ({', '.join(_setting(key, inner) for key, inner in value.items())})"
    if isinstance(value, list | tuple):
        return f"{name} [{', '.join(map(str, value))}]"
    return f"{name} {value}"
