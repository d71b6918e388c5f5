"""What a study will cost, as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subsettune.report.data_tables import data_blocks, warning_blocks
from subsettune.report.render import WIDTH, Block, Column, Table, render
from subsettune.text import NOTHING, flops_words, is_number, passes_words, seconds_words

UNDER = "under 0.01"  # a price that nobody compares


def plan_text(plan: Mapping[str, Any], width: int = WIDTH) -> str:
    """What a study will cost, as plain text; the keys are those of `plan_blocks`."""
    return render(plan_blocks(plan), width)


def plan_blocks(plan: Mapping[str, Any]) -> list[Block]:
    """What a study is about and will cost, before anything is trained.

    Args:
        plan: `task` (one line), `example` (what one is), `num_examples`, `num_outputs`, `num_parameters`, `q`,
            `num_validation`, `num_test`, `forward_flops` and `backward_flops` of a pass, `pass_flops`,
            `reference_passes`, `reference_flops`, `runs`: by kind, each `{runs, passes, flops}` with the passes it
            takes at most, `passes` and `flops` in all, `stages`: by name, the projected wall-clock seconds `{expected,
            at_most}`, `expected_seconds` and `seconds` of all of them or null, `parallel`, `expectations`: sentences.
            `test_notes`: sentences about what the test split can show.
            `price`, what that costs: `per_hour`, `expected` and `at_most`.
            `data`, of which `data_blocks` tells more, and `warnings` about it: sentences. What is absent is left out.
    """
    blocks: list[Block] = [str(plan["task"])] if plan.get("task") else []
    blocks += [f"An example: {plan['example']}."] if plan.get("example") else []
    rows = tuple((name, words, meaning) for name, words, meaning in _fact_rows(plan) if words != NOTHING)
    meaning = Column(title="", wrap=True)
    blocks.append(Table(columns=(Column(title=""), Column(title="", align="right"), meaning), rows=rows))
    blocks += data_blocks(plan["data"]) if plan.get("data") else []
    if plan.get("runs"):
        blocks.append(_runs_table(plan))
    if plan.get("stages"):
        blocks.append(_time_table(plan))
    blocks.append(" ".join([_projection(plan), *_price(plan)]))
    expectations = plan.get("expectations") or ()
    sentences = [expectations] if isinstance(expectations, str) else list(expectations)
    blocks += ["\n".join(sentences)] if sentences else []
    return [*blocks, *warning_blocks(plan.get("warnings") or ()), *(plan.get("test_notes") or ())]


def _fact_rows(plan: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    q, unit = plan.get("q"), plan.get("unit", "FLOP")
    is_flop = unit == "FLOP"
    parts = [
        ("", flops_words(plan.get("forward_flops"), unit), "of it forward"),
        ("", flops_words(plan.get("backward_flops"), unit), "of it backward"),
    ]
    through = "forward and backward of all training examples" if is_flop else "all training examples once"
    return [
        ("N", _count(plan.get("num_examples")), "training examples"),
        ("", _count(plan.get("num_validation")), "validation examples, seen by the search"),
        ("", _count(plan.get("num_test")), "test examples, seen by verification only"),
        ("M", _count(plan.get("num_outputs")), "output units"),
        ("P", _count(plan.get("num_parameters")), "trainable parameters"),
        ("Q", f"{q:.3g}" if is_number(q) else NOTHING, "N*M/P, overdetermination ratio of all data"),
        ("pass", flops_words(plan.get("pass_flops"), unit), through),
        *(parts if is_flop else ()),
        ("reference", passes_words(plan.get("reference_passes")), "passes of the conventional recipe"),
        ("", flops_words(plan.get("reference_flops"), unit), "of them, one conventional training"),
    ]


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _runs_table(plan: Mapping[str, Any]) -> Table:
    def row(name: str, kind: Mapping[str, Any]) -> tuple[str, ...]:
        compute = flops_words(kind.get("flops"), plan.get("unit", "FLOP"))
        return (name, _count(kind.get("runs")), passes_words(kind.get("passes")), compute)

    rows = [row(name, kind) for name, kind in plan["runs"].items()]
    total = {"runs": sum(kind.get("runs") or 0 for kind in plan["runs"].values()), **_picked(plan, "passes", "flops")}
    titles = ("kind", "runs", "passes", "compute")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    return Table(title="Runs, at most", columns=columns, rows=(*rows, row("all", total)))


def _picked(plan: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: plan.get(key) for key in keys}


def _time_table(plan: Mapping[str, Any]) -> Table:
    total = {"expected": plan.get("expected_seconds"), "at_most": plan.get("seconds")}
    rows = tuple(
        (stage, seconds_words(one.get("expected")), seconds_words(one.get("at_most")))
        for stage, one in {**plan["stages"], "all": total}.items()
    )
    titles = ("stage", "expected", "at most")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    return Table(title="Time, projected", columns=columns, rows=rows)


def _projection(plan: Mapping[str, Any]) -> str:
    seconds, parallel = plan.get("seconds"), plan.get("parallel")
    at_a_time = f" with {parallel} run{'s' * (parallel != 1)} at a time" if parallel else ""
    if not is_number(seconds):
        return f"Time{at_a_time}: unknown until the reference has run."
    expected = plan.get("expected_seconds")
    about = f"about {seconds_words(expected)}, " if is_number(expected) else ""
    return f"Time{at_a_time}: {about}{seconds_words(seconds)} at most, projected."


def _price(plan: Mapping[str, Any]) -> list[str]:
    """What the projected time costs, where a price was given."""
    found = plan.get("price")
    if found is None:
        return []
    if found["at_most"] is None:
        return [f"No price is known before that, at {_money(found['per_hour'])} an hour or any other."]
    expected, most, per_hour = (_money(found[key]) for key in ("expected", "at_most", "per_hour"))
    about = "" if expected == UNDER else "about "
    return [f"At {per_hour} an hour: {about}{expected}, {most} at most."]


def _money(amount: float) -> str:
    """Cents, or two digits of what is less than one: `1,234.50`, `0.40`, `0.012`."""
    return f"{amount:,.2f}" if amount >= 0.995 else f"{amount:#.2g}" if amount >= 0.01 else UNDER
