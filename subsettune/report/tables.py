"""What a study found, will cost, or may choose from, as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from subsettune.report.render import WIDTH, Block, Column, Table, render
from subsettune.study.results.headline import (
    COMPARISON_CAVEAT,
    candidate_of,
    compared_of,
    comparison_words,
    headline,
    verdict_words,
)
from subsettune.study.spec.kinds import KINDS
from subsettune.text import (
    NOTHING,
    as_policy,
    bytes_words,
    describe,
    flops_words,
    is_number,
    metric_name,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    share_words,
    short_seconds_words,
)

if TYPE_CHECKING:
    from subsettune.study.results.view import AblationResult, StudyView

NAME_WIDTH = 18  # of the longest name of our own; a user's longer one is cut in the table and whole below it


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One line of the result: the reference, the best policy, or a control.

    Args:
        role: `reference`, `best`, `shorter`, `equal` or `random`.
        title: the role in words.
        policy: in words.
        verdict: in words.
        num_seeds: runs behind the metric.
        metric: on the test split, or before verification on the validation split.
        bound: one-sided lower bound on metric minus reference, oriented so that more is better.
        passes: compute of one training.
        flops: likewise.
        seconds: likewise, selection included.
        saving: against the recipe.
        saving_shorter: against the best shorter schedule.
    """

    role: str
    title: str
    policy: str
    verdict: str
    num_seeds: int | None = None
    metric: float | None = None
    bound: float | None = None
    passes: float | None = None
    flops: float | None = None
    seconds: float | None = None
    saving: float | None = None
    saving_shorter: float | None = None


TITLES = {
    "reference": "reference (the recipe as it is)",
    "best": "best policy",
    "shorter": "best shorter schedule on all data",
    "equal": "all data for the compute of the best policy",
    "random": "random control",
    "both": "best policy: the best shorter schedule on all data",
}


def result_rows(view: StudyView) -> tuple[ResultRow, ...]:
    """The lines of the result table that are known so far, reference first."""
    rows = []
    reference = view.summary.get("reference")
    if reference:
        rows.append(_reference_row(view, reference))
    best, shorter = view.summary.get("best"), view.summary.get("shorter")
    one = bool(best and shorter and as_policy(best["policy"]).key == as_policy(shorter["policy"]).key)
    equal = view.summary.get("equal")
    again = bool(equal and shorter and equal["name"] == shorter.get("name"))  # one line is enough
    skipped = {"shorter"} if one else {"equal"} if again else set()
    roles = [role for role in ("best", "shorter", "equal", "random") if role not in skipped]
    rows += [_policy_row(view, role, view.summary[role]) for role in roles if view.summary.get(role)]
    return tuple(_as_both(row) if one and row.role == "best" else row for row in rows)


def _as_both(row: ResultRow) -> ResultRow:
    """The line of a best policy that is itself the best shorter schedule: it is not compared with itself."""
    return dataclasses.replace(row, title=TITLES["both"], saving_shorter=None)


def _reference_row(view: StudyView, reference: Mapping[str, Any]) -> ResultRow:
    tested = {run.seed for run in view.verification if run.candidate == "reference" and run.test_metric is not None}
    is_tested = reference.get("test_metric") is not None
    return ResultRow(
        role="reference",
        title=TITLES["reference"],
        policy=f"all data for {passes_words(reference.get('passes'))} passes",
        verdict="",
        num_seeds=len(tested) if is_tested else reference.get("seeds"),
        metric=reference["test_metric"] if is_tested else reference.get("metric"),
        **{key: reference.get(key) for key in ("passes", "flops", "seconds")},
    )


def _policy_row(view: StudyView, role: str, row: Mapping[str, Any]) -> ResultRow:
    shorter = view.summary.get("shorter")
    name = candidate_of(view, row)
    verdict = view.verdicts.get(name) if name else None
    return ResultRow(
        role=role,
        title=TITLES[role],
        policy=describe(row["policy"], view.facts),
        verdict=_verdict(view, row, verdict),
        num_seeds=_num_seeds(view, row, name, verdict),
        bound=row.get("interval"),
        saving_shorter=1 - row["flops"] / shorter["flops"] if role != "shorter" and _matches(shorter) else None,
        **{key: row.get(key) for key in ("metric", "passes", "flops", "seconds", "saving")},
    )


def _matches(shorter: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    """Whether the best shorter schedule is one to compare with: a schedule that missed saves nothing."""
    return bool(shorter) and shorter is not None and shorter.get("passed") is not False


def _verdict(view: StudyView, row: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> str:
    if row.get("passed") is not None:
        return "passed" if row["passed"] else verdict_words(verdict or {"passed": False}, view.study.task.tolerance)
    return verdict_words(verdict, view.study.task.tolerance) if verdict else "not verified yet"


def _num_seeds(
    view: StudyView, row: Mapping[str, Any], name: str | None, verdict: Mapping[str, Any] | None
) -> int | None:
    if seeds := (verdict or {}).get("num_seeds") or row.get("seeds"):
        return int(seeds)
    if name and (runs := [r for r in view.verification if r.candidate == name and r.cause == "finished"]):
        return len(runs)
    key = as_policy(row["policy"]).key
    return sum(trial.policy.key == key and trial.cause == "finished" for trial in view.trials) or None


def result_table(view: StudyView) -> Table:
    """Reference, best policy, best shorter schedule and random control in numbers, fit for 80 columns."""
    tolerance = view.study.task.tolerance
    titles = ("", "n", _short_metric(view), "bound", "passes", "compute", "time", "saved", "vs short")
    rows = [
        (
            row.role,
            str(row.num_seeds or NOTHING),
            metric_words(row.metric, tolerance),
            metric_words(row.bound, tolerance, signed=True),
            passes_words(row.passes),
            flops_words(row.flops),
            short_seconds_words(row.seconds),
            saving_words(row.saving),
            saving_words(row.saving_shorter),
        )
        for row in result_rows(view)
    ]
    return Table(
        columns=tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles)),
        rows=tuple(rows),
    )


def _short_metric(view: StudyView) -> str:
    """The metric as a heading that is no wider than its numbers."""
    name = metric_name(view.study.task.metric)
    return name if len(name) <= len("accuracy") else "metric"


def policy_table(view: StudyView) -> Table:
    """The verdict and the policy in words for each line of the result table."""
    found = result_rows(view)
    both = {row.role for row in found if row.title == TITLES["both"]}
    words = {row.role: f"{row.policy} (the best shorter schedule)" if row.role in both else row.policy for row in found}
    rows = tuple((row.role, row.verdict or NOTHING, words[row.role]) for row in found)
    return Table(columns=(Column(title=""), Column(title="verdict"), Column(title="policy", wrap=True)), rows=rows)


def legend(view: StudyView) -> str:
    """What the columns of the result table mean, in one or two sentences."""
    name, heading = metric_name(view.study.task.metric), _short_metric(view)
    metric = f"{name}:" if name == heading else f"{heading}: {name},"
    split = "test" if any(v.get("num_seeds") for v in view.verdicts.values()) else "validation"
    direction = "" if view.study.task.higher_is_better else ", its sign turned so that more is better"
    return (
        f"{metric} mean of n seeds on the {split} split. bound: one-sided lower bound on the difference to the "
        f"reference{direction}, at a level that keeps the error rate of all tests within {view.study.study.alpha:g}; a "
        f"policy passes when it is above {-view.study.task.tolerance:g}. time: of one training, selection included. "
        "saved: compute against the recipe; vs short: against the best shorter schedule on all data."
    )


def candidates_table(view: StudyView) -> Table:
    """One line a candidate, in the order of testing: what verification measured and decided."""
    tolerance = view.study.task.tolerance
    rows, reasons = [], []
    for name, candidate in view.candidates.items():
        verdict = view.verdicts.get(name, {})
        passes = candidate.cost_flops / view.facts.pass_flops if view.facts else None
        rows.append(
            (
                name,
                passes_words(passes),
                str(verdict.get("num_seeds") or NOTHING),
                metric_words(verdict.get("mean_difference"), tolerance, signed=True),
                metric_words(verdict.get("lower_bound"), tolerance, signed=True),
                f"{-tolerance:g}",
                alpha_words(verdict.get("alpha_spent")),
                verdict_words(verdict or None, tolerance),
            )
        )
        if verdict.get("reason"):
            reasons.append(f"{name}: {verdict['reason']}")
    titles = ("candidate", "passes", "n", "difference", "bound", "margin", "alpha", "verdict")
    columns = tuple(Column(title=t, align="left" if t in ("candidate", "verdict") else "right") for t in titles)
    return Table(title="Verification", columns=columns, rows=tuple(rows), note="\n".join(reasons))


def alpha_words(alpha: float | None) -> str:
    """Error rate spent on a test: `0.031`."""
    return NOTHING if alpha is None or not is_number(alpha) else f"{alpha:.3g}"


def components_table(view: StudyView) -> Table:
    """One line a component: how it compares with its neutral kin at equal cost, or its trials; fit for 80 columns."""
    rows = view.summary.get("components") or ()
    titles: tuple[str, ...] = ("component", "kind", "met", "passes")
    cells, notes = [_counted_cells(view, row) for row in rows], list[str]()
    if view.compared:
        titles = ("component", "against", "n", "differ", "from", "to", "paid?")
        cells = [_compared_cells(view, row) for row in rows if row["against"] is not None]
        notes = [f"{component_title(row)}: {component_text(view, row)}" for row in rows]
    words = ("component", "kind", "against", "paid?")
    columns = tuple(Column(title=t, align="left" if t in words else "right") for t in titles)
    note = "\n".join([*notes, components_legend(view)])
    return Table(title="Components", columns=columns, rows=tuple(cells), note=note)


def _counted_cells(view: StudyView, row: Mapping[str, Any]) -> tuple[str, ...]:
    met = f"{row['feasible']}/{row['trials']}"
    return _short(row["name"]), row["kind"], met, passes_words(cheapest_passes(view, row))


def _compared_cells(view: StudyView, row: Mapping[str, Any]) -> tuple[str, ...]:
    compared, tolerance = compared_of(view, row), view.study.task.tolerance
    ends = (compared.difference, compared.lower, compared.upper) if compared else (None, None, None)
    return (
        _short(row["name"]),
        row["against"],
        str(len(compared.differences)) if compared and compared.differences else NOTHING,
        *(metric_words(value, tolerance, signed=True) for value in ends),
        comparison_words(compared).split(":")[0] if compared else NOTHING,
    )


def component_title(row: Mapping[str, Any]) -> str:
    """A component of the summary by its kind and name: `order sift`, `no soup`."""
    return KINDS[row["kind"]].words(row["name"])


def component_text(view: StudyView, row: Mapping[str, Any]) -> str:
    """How a component did in the search, what it was compared by and what that cost; or why there is no result."""
    compared, passes = compared_of(view, row), cheapest_passes(view, row)
    cheapest = "" if passes is None else f", the cheapest with {passes_words(passes)} passes"
    met = f"{row['feasible']} of {row['trials']} trials met the target{cheapest}"
    return f"{met}." if compared is None else f"{met}; {compared_text(view, compared)}"


def cheapest_passes(view: StudyView, row: Mapping[str, Any]) -> float | None:
    """Compute of a component's cheapest trial that reached the target, in passes."""
    if view.facts is None or row["cheapest_flops"] is None:
        return None
    return float(row["cheapest_flops"] / view.facts.pass_flops)


def _short(name: str) -> str:
    short = name.rpartition(":")[2]
    return short if len(short) <= NAME_WIDTH else f"{short[: NAME_WIDTH - 2]}.."


def compared_text(view: StudyView, row: AblationResult) -> str:
    """What a component was compared by, and what it cost; or why there is no result."""
    if row.policy is None:
        return f"{comparison_words(row).rstrip('.')}."
    borrowed = " (never finished in the search; the best policy without it, or one near it)"
    origin = "" if row.trials else borrowed
    policy = f"{describe(row.policy, view.facts)}{origin}"
    if row.difference is None:
        return f"{comparison_words(row)}. {policy}."
    metrics = [metric_words(value, view.study.task.tolerance) for value in (row.metric, row.twin_metric)]
    name, n = metric_name(view.study.task.metric), len(row.differences)
    costs = f"both cost {flops_words(row.cost_flops)}{_charge(row)}"
    return f"{name} {metrics[0]} against {metrics[1]} over {n} seeds; {costs}. {policy}."


def _charge(row: AblationResult) -> str:
    """What of the compute goes to the component beside the updates."""
    if row.kind == "selector":
        return f", {share_words(row.selection_share)} of it ({seconds_words(row.select_s)}) for choosing the subset"
    return f", {share_words(row.selection_share)} of it for the {row.kind}" if row.selection_flops else ""


def components_legend(view: StudyView) -> str:
    """What the columns mean, and what the comparison is no evidence of."""
    counts = "met: reached the target, on the validation split, in one run, before verification."
    if not view.compared:
        return counts
    from subsettune.study.results.view import COMPARISON_LEVEL  # its package loads what other tables do not need

    turned = "" if view.study.task.higher_is_better else ", its sign turned so that more is better"
    return (
        f"{counts} differ: mean difference in the validation {metric_name(view.study.task.metric)} between the "
        "component's most promising policy and the same policy with, instead of it, what it stands against "
        f"({', '.join(kind.compared_with for kind in KINDS.values())}){turned}, over the same n seeds and at "
        f"the same total compute, all that the component does included; from, to: its {share_words(COMPARISON_LEVEL)} "
        f"interval. {COMPARISON_CAVEAT}"
    )


def counts_text(view: StudyView) -> str:
    """How many trials there were and what became of them."""
    trials = view.summary.get("trials") or {}
    words = {"finished": "finished", "stopped": "stopped early", "skipped": "skipped untrained", "failed": "failed"}
    text = "Trials: " + ", ".join(f"{trials.get(key, 0)} {word}" for key, word in words.items()) + "."
    stops = view.summary.get("false_stops") or {}
    if stops.get("checked"):
        text += f" False stops: {stops.get('false', 0)} of {stops['checked']} stopped trials that were run out."
    return text


def tuning_text(view: StudyView) -> str:
    """What tuning cost and how many future trainings repay it."""
    tuning = view.summary.get("tuning") or {}
    if not is_number(tuning.get("flops")) or not tuning["flops"]:
        return "Tuning cost: unknown until the first run has finished."
    cost = f"{passes_words(tuning.get('passes'))} passes, {flops_words(tuning['flops'])}"
    text = f"Tuning cost {cost}, {seconds_words(tuning.get('seconds'))} of training, evaluation included"
    reference, even = view.summary.get("reference"), tuning.get("break_even")
    if reference and is_number(reference.get("flops")):
        text += f": as much as {tuning['flops'] / reference['flops']:.1f} conventional trainings"
    if not is_number(even):
        return f"{text}. Without a verified saving it is not repaid."
    return f"{text}. It is repaid after {even:,.0f} trainings by the best policy instead of the recipe."


def result_blocks(view: StudyView, report: str | None = None) -> list[Block]:
    """Everything that a finished study prints: headline, result, evidence, counts, cost and where the files are."""
    blocks: list[Block] = [headline(view)]
    if result_rows(view):
        blocks += [result_table(view), policy_table(view), legend(view)]
    if view.candidates:
        blocks.append(candidates_table(view))
    if view.trials and view.summary.get("components"):
        blocks.append(components_table(view))
    blocks.append(f"{counts_text(view)}\n{tuning_text(view)}")
    places = {"Report": report, "Bundle": view.summary.get("bundle")}
    paths = [f"{name}: {path}" for name, path in places.items() if path]
    return [*blocks, "\n".join(paths)] if paths else blocks


def result_text(view: StudyView, report: str | None = None, width: int = WIDTH) -> str:
    """The same as plain text."""
    return render(result_blocks(view, report), width)


def plan_text(plan: Mapping[str, Any], width: int = WIDTH) -> str:
    """What a study will cost, as plain text; the keys are those of `plan_blocks`."""
    return render(plan_blocks(plan), width)


def plan_blocks(plan: Mapping[str, Any]) -> list[Block]:
    """What a study is about and will cost, before anything is trained.

    Args:
        plan: `task` (one line), `num_examples`, `num_outputs`, `num_parameters`, `q`, `num_validation`, `num_test`,
            `forward_flops` and `backward_flops` of a pass, `pass_flops`, `reference_passes`, `reference_flops`,
            `runs`: by kind, each `{runs, passes, flops}` with the passes it takes at most, `passes` and `flops` in
            all, `seconds` projected or null, `parallel`, `expectations`: sentences. What is absent is left out.
    """
    blocks: list[Block] = [str(plan["task"])] if plan.get("task") else []
    rows = tuple((name, words, meaning) for name, words, meaning in _fact_rows(plan) if words != NOTHING)
    meaning = Column(title="", wrap=True)
    blocks.append(Table(columns=(Column(title=""), Column(title="", align="right"), meaning), rows=rows))
    if plan.get("runs"):
        blocks.append(_runs_table(plan))
    blocks.append(_projection(plan))
    expectations = plan.get("expectations") or ()
    sentences = [expectations] if isinstance(expectations, str) else list(expectations)
    return blocks + (["\n".join(sentences)] if sentences else [])


def _fact_rows(plan: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    q = plan.get("q")
    return [
        ("N", _count(plan.get("num_examples")), "training examples"),
        ("", _count(plan.get("num_validation")), "validation examples, seen by the search"),
        ("", _count(plan.get("num_test")), "test examples, seen by verification only"),
        ("M", _count(plan.get("num_outputs")), "output units"),
        ("P", _count(plan.get("num_parameters")), "trainable parameters"),
        ("Q", f"{q:.3g}" if is_number(q) else NOTHING, "N*M/P, overdetermination ratio of all data"),
        ("pass", flops_words(plan.get("pass_flops")), "forward and backward of all training examples"),
        ("", flops_words(plan.get("forward_flops")), "of it forward"),
        ("", flops_words(plan.get("backward_flops")), "of it backward"),
        ("reference", passes_words(plan.get("reference_passes")), "passes of the conventional recipe"),
        ("", flops_words(plan.get("reference_flops")), "of them, one conventional training"),
    ]


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _runs_table(plan: Mapping[str, Any]) -> Table:
    def row(name: str, kind: Mapping[str, Any]) -> tuple[str, ...]:
        return (name, _count(kind.get("runs")), passes_words(kind.get("passes")), flops_words(kind.get("flops")))

    rows = [row(name, kind) for name, kind in plan["runs"].items()]
    total = {"runs": sum(kind.get("runs") or 0 for kind in plan["runs"].values()), **_picked(plan, "passes", "flops")}
    titles = ("kind", "runs", "passes", "compute")
    columns = tuple(Column(title=title, align="right" if i else "left") for i, title in enumerate(titles))
    return Table(title="Runs, at most", columns=columns, rows=(*rows, row("all", total)))


def _picked(plan: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: plan.get(key) for key in keys}


def _projection(plan: Mapping[str, Any]) -> str:
    seconds, parallel = plan.get("seconds"), plan.get("parallel")
    at_a_time = f" with {parallel} run{'s' * (parallel != 1)} at a time" if parallel else ""
    if not is_number(seconds):
        return f"Time{at_a_time}: unknown until the reference has run."
    return f"Time{at_a_time}: {float(seconds or 0) / 3600:.2g} hours ({seconds_words(seconds)}) at most, projected."


Row = Mapping[str, Any]


def runs_table(rows: Sequence[Row]) -> Table:
    """Studies on a storage path: `run_id`, `status`, `trials`, `asked`, `saving`, `num_bytes`, `modified`."""
    return _listing(
        rows,
        {
            "run": lambda r: str(r["run_id"]),
            "status": lambda r: str(r.get("status") or NOTHING),
            "trials": lambda r: f"{r.get('trials', 0)}/{r['asked']}" if r.get("asked") else str(r.get("trials", 0)),
            "saved": lambda r: saving_words(r.get("saving")),
            "size": lambda r: bytes_words(r.get("num_bytes")),
            "changed": lambda r: str(r.get("modified") or NOTHING),
        },
        right=("trials", "saved", "size"),
        empty="No runs here yet. Start one: subsettune tune STUDY.yaml",
    )


def names_table(rows: Sequence[Row], what: str) -> Table:
    """What there is to choose from: `name`, `about`, and if given `options`; `what` is `order`, `model`, `data`."""
    columns = {what: lambda r: str(r["name"]), "about": _about}
    return _listing(rows, columns, wrap="about", empty=f"No {what} is known.")


def _about(row: Row) -> str:
    """What something is; and its options, which many have too many of for a column of their own."""
    about = str(row.get("about") or "")
    return f"{about.rstrip('.')}. Options: {row['options']}." if row.get("options") else about


def caches_table(rows: Sequence[Row]) -> Table:
    """What `clean` may remove: `kind`, `path`, `num_bytes`, and if known `used`; the sum is in the note."""
    table = _listing(
        rows,
        {
            "kind": lambda r: str(r["kind"]),
            "size": lambda r: bytes_words(r.get("num_bytes")),
            "used": lambda r: str(r.get("used") or NOTHING),
            "path": lambda r: str(r["path"]),
        },
        right=("size",),
        empty="Nothing to clean.",
    )
    total = sum(row.get("num_bytes") or 0 for row in rows)
    return Table(columns=table.columns, rows=table.rows, note=f"{bytes_words(total)} in all." if rows else table.note)


def _listing(
    rows: Sequence[Row],
    cells: Mapping[str, Callable[[Row], str]],
    *,
    right: tuple[str, ...] = (),
    wrap: str = "",
    empty: str = "",
) -> Table:
    columns = tuple(Column(title=t, align="right" if t in right else "left", wrap=t == wrap) for t in cells)
    found = tuple(tuple(cell(row) for cell in cells.values()) for row in rows)
    return Table(columns=columns if rows else (), rows=found, note="" if rows else empty)
