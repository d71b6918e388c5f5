"""The report: one self-contained HTML page that opens from a file, without a network, in any browser.

plotly.js is inlined once; the page's content security policy forbids every fetch. Tables are plain HTML and stay
readable without scripts. All text that comes from a study is escaped.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from subsettune.report import assets
from subsettune.report.figures import REFERENCE, figures, seed_differences, test_metrics
from subsettune.report.tables import (
    ResultRow,
    alpha_words,
    cheapest_passes,
    component_text,
    component_title,
    components_legend,
    counts_text,
    legend,
    result_rows,
    tuning_text,
)
from subsettune.study.results.headline import COMPARISON_WORDS, compared_of, headline, verdict_words
from subsettune.text import (
    NOTHING,
    bytes_words,
    describe,
    flops_words,
    metric_name,
    metric_words,
    passes_words,
    saving_words,
    seconds_words,
    share_words,
)

if TYPE_CHECKING:
    from subsettune.report.drawing import Figure
    from subsettune.study.results.records import RunRecord
    from subsettune.study.results.view import AblationResult, StudyView

MOST_FAILURES = 8  # more of them are folded away
CAVEAT = (
    "The evidence covers the noise of training (initial weights, order of examples), not the sampling of the test set: "
    "all runs are judged on the same test examples."
)
Cell = tuple[str, str, str]  # heading, HTML, classes


def write_report(view: StudyView, target: str | Path | TextIO, command: str | None = None) -> None:
    """Write the report of a study, finished or not.

    Args:
        view: the study.
        target: a local path, replaced as a whole once the page is complete, or a text stream.
        command: the exact command; default: the one in the manifest.
    """
    text = page(view, command)
    if not isinstance(target, str | Path):
        target.write(text)
        return
    path = Path(target)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def page(view: StudyView, command: str | None = None) -> str:
    """The whole report as one text of HTML, about 5 MB, nearly all of it plotly.js."""
    drawn = figures(view)
    sections = [
        _head(view),
        _result(view),
        *(_figure(figure) for figure in drawn),
        _evidence(view),
        _components(view),
        _failures(view),
        _origin(view, command),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{assets.POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(view.run_id)} - subsettune</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{assets.STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *(section for section in sections if section),
            "</main>",
            *(_scripts(drawn) if drawn else ()),
            "</body>",
            "</html>",
            "",
        ]
    )


def _scripts(drawn: Sequence[Figure]) -> list[str]:
    from plotly.offline import get_plotlyjs

    return [
        f'<script type="application/json" id="figures">{figures_json(drawn)}</script>',
        f"<script>{get_plotlyjs()}</script>",
        f"<script>{assets.SCRIPT}</script>",
    ]


def figures_json(drawn: Sequence[Figure]) -> str:
    """All figures as JSON that is safe inside a script element: no `<`, no NaN."""
    plain = {figure.name: {"data": figure.data, "layout": figure.layout} for figure in drawn}
    return json.dumps(plain, allow_nan=False).replace("<", "\\u003c")


def _head(view: StudyView) -> str:
    status = str(view.summary.get("status", ""))
    return (
        f'<p class="eyebrow">subsettune study {escape(view.run_id)} {_chip(status, _status_colour(view))}</p>\n'
        f"<h1>{_unbroken(headline(view))}</h1>"
    )


def _status_colour(view: StudyView) -> str:
    if view.summary.get("status") != "finished":
        return ""
    return "good" if view.summary.get("verified") else "bad"


def _chip(words: str, colour: str = "") -> str:
    return f'<span class="{f"chip {colour}".strip()}">{_unbroken(words)}</span>'


def _verdict_chip(words: str) -> str:
    colour = "good" if words == "passed" else "bad" if words.startswith("missed") else ""
    return _chip(words, colour) if words else ""


def _unbroken(text: str) -> str:
    """Escaped, with a number and its per cent sign kept on one line."""
    return escape(text).replace(" %", "&nbsp;%")


def _table(rows: Iterable[Sequence[Cell]], classes: str = "cards") -> str:
    rows = list(rows)
    if not rows:
        return ""
    heads = "".join(f'<th class="{classes_}">{escape(title)}</th>' for title, _, classes_ in rows[0])
    body = "\n".join(f"<tr>{''.join(_cell(*cell) for cell in row)}</tr>" for row in rows)
    table = f'<table class="{classes}"><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _cell(title: str, content: str, classes: str) -> str:
    missing = " none" if content in ("", NOTHING) else ""
    label = f' data-label="{escape(title)}"' if title else ""
    return f'<td class="{classes}{missing}"{label}><span>{content}</span></td>'


def _result(view: StudyView) -> str:
    parts = [_table(_result_cells(view, row) for row in result_rows(view))]
    if parts[0]:
        parts.append(f'<p class="small">{_unbroken(legend(view))}</p>')
    parts.append(f"<p>{_unbroken(counts_text(view))} {_unbroken(tuning_text(view))}</p>")
    if view.summary.get("bundle"):
        parts.append(f"<p>Bundle: <code>{escape(str(view.summary['bundle']))}</code></p>")
    return "\n".join(parts)


def _result_cells(view: StudyView, row: ResultRow) -> list[Cell]:
    tolerance = view.study.task.tolerance
    seeds = f' <span class="small">n={row.num_seeds}</span>' if row.num_seeds else ""
    return [
        ("", f'<b>{escape(row.title)}</b><span class="sub">{_unbroken(row.policy)}</span>', ""),
        (metric_name(view.study.task.metric), metric_words(row.metric, tolerance) + seeds, "num"),
        ("bound", metric_words(row.bound, tolerance, signed=True), "num"),
        ("passes", passes_words(row.passes), "num"),
        ("compute", flops_words(row.flops), "num"),
        ("time", seconds_words(row.seconds), "num"),
        ("saved", _unbroken(saving_words(row.saving)), "num"),
        ("vs short", _unbroken(saving_words(row.saving_shorter)), "num"),
        ("verdict", _verdict_chip(row.verdict), ""),
    ]


def _figure(figure: Figure) -> str:
    entries = [f"<li>{assets.mark(shape, colour)}{_unbroken(words)}</li>" for shape, colour, words in figure.legend]
    return (
        f"<h2>{_unbroken(figure.title)}</h2>\n<figure>\n"
        f'<figcaption class="reading">{_unbroken(figure.reading)}</figcaption>\n'
        f'<ul class="legend">{"".join(entries)}</ul>\n'
        f'<div class="plot" id="figure-{figure.name}" role="img" aria-label="{escape(figure.title)}">'
        "<noscript><p>This figure is drawn by a script inside this page; scripts are off.</p></noscript></div>\n"
        "</figure>"
    )


def _evidence(view: StudyView) -> str:
    if not view.candidates:
        return ""
    tolerance = view.study.task.tolerance
    intro = (
        "Candidates are tested dearest first until the first failure, with the reference's seeds. A policy passes when "
        f"its lower bound lies above the margin of {-tolerance:g}. {CAVEAT}"
    )
    rows = [_evidence_cells(view, name) for name in view.candidates]
    parts = ["<h2>Evidence</h2>", f'<p class="reading">{escape(intro)}</p>', _table(rows)]
    seeds = _table(_seed_rows(view), "seeds")
    if seeds:
        title = f"Test {metric_name(view.study.task.metric)} seed by seed"
        parts.append(f"<h3>{escape(title)}</h3>\n{seeds}")
    return "\n".join(parts)


def _evidence_cells(view: StudyView, name: str) -> list[Cell]:
    tolerance = view.study.task.tolerance
    verdict: Mapping[str, Any] = view.verdicts.get(name, {})
    words = f"{describe(view.candidates[name].policy, view.facts)}. {verdict.get('reason') or ''}".strip()
    return [
        ("", f'<b>{escape(name)}</b><span class="sub">{_unbroken(words)}</span>', ""),
        ("seeds", str(verdict.get("num_seeds") or NOTHING), "num"),
        ("mean difference", metric_words(verdict.get("mean_difference"), tolerance, signed=True), "num"),
        ("lower bound", metric_words(verdict.get("lower_bound"), tolerance, signed=True), "num"),
        ("margin", f"{-tolerance:g}", "num"),
        ("p-value", alpha_words(verdict.get("p_value")), "num"),
        ("alpha spent", alpha_words(verdict.get("alpha_spent")), "num"),
        ("verdict", _verdict_chip(verdict_words(verdict or None, tolerance)), ""),
    ]


def _seed_rows(view: StudyView) -> list[list[Cell]]:
    tolerance = view.study.task.tolerance
    by_name = {name: test_metrics(view, name) for name in (REFERENCE, *view.candidates)}
    seeds = sorted({seed for metrics in by_name.values() for seed in metrics})
    rows = []
    for name, metrics in by_name.items():
        if metrics:
            differences = seed_differences(view, name) if name != REFERENCE else {}
            cells = [_seed_cell(seed, metrics.get(seed), differences.get(seed), tolerance) for seed in seeds]
            rows.append([("", f"<b>{escape(name)}</b>", ""), *cells])
    return rows


def _seed_cell(seed: int, metric: float | None, difference: float | None, tolerance: float) -> Cell:
    beside = (
        "" if difference is None else f'<span class="sub">{metric_words(difference, tolerance, signed=True)}</span>'
    )
    return (f"seed {seed}", metric_words(metric, tolerance) + beside, "num")


def _components(view: StudyView) -> str:
    """Every component: its trials, and whether it paid for itself."""
    rows = view.summary.get("components") or ()
    if not rows or not view.trials:
        return ""
    reading = f'<p class="reading">{_unbroken(components_legend(view))}</p>'
    table = _table(_component_cells(view, row) for row in rows)
    return f"<h2>Which components paid for themselves?</h2>\n{reading}\n{table}"


def _component_cells(view: StudyView, row: Mapping[str, Any]) -> list[Cell]:
    tolerance, compared = view.study.task.tolerance, compared_of(view, row)
    difference = (compared.difference, compared.lower, compared.upper) if compared else (None, None, None)
    mean, lower, upper = (metric_words(value, tolerance, signed=True) for value in difference)
    return [
        (
            "",
            f'<b>{escape(component_title(row))}</b><span class="sub">{_unbroken(component_text(view, row))}</span>',
            "",
        ),
        ("against", escape(row["against"] or NOTHING), ""),
        ("met", f"{row['feasible']}/{row['trials']}", "num"),
        ("passes", passes_words(cheapest_passes(view, row)), "num"),
        ("compute", flops_words(compared.cost_flops if compared else None), "num"),
        ("selection", _unbroken(share_words(compared.selection_share if compared else None)), "num"),
        ("seeds", str(len(compared.differences) if compared and compared.differences else NOTHING), "num"),
        ("differ", mean, "num"),
        ("from", lower, "num"),
        ("to", upper, "num"),
        ("paid?", _paid_chip(compared) if compared else NOTHING, ""),
    ]


def _paid_chip(row: AblationResult) -> str:
    colour = {"paid": "good", "not_paid": "bad"}.get(row.verdict, "")
    return _chip(COMPARISON_WORDS[row.verdict], colour)


def _failures(view: StudyView) -> str:
    """Runs without a result, with what went wrong and where the log is."""
    everything = (*view.reference, *view.trials, *view.verification, *view.comparison)
    runs = [run for run in everything if run.cause in ("failed", "diverged")]
    if not runs:
        return ""
    table = _table(_failure_cells(run) for run in runs)
    if len(runs) > MOST_FAILURES:
        table = f"<details><summary>{len(runs)} runs</summary>{table}</details>"
    return f"<h2>Runs without a result</h2>\n{table}"


def _failure_cells(run: RunRecord) -> list[Cell]:
    where = f'<span class="sub">Log: {escape(run.log)}</span>' if run.log else ""
    happened = ("what happened", escape(run.message) + where, "")
    return [("run", f"<b>{escape(run.name)}</b>", ""), ("cause", run.cause, ""), happened]


def _origin(view: StudyView, command: str | None) -> str:
    """Where the numbers come from: command, versions, hardware, data, the resolved study."""
    from subsettune.study.spec.yaml_file import to_yaml  # its package loads what a log line of progress does not need

    manifest = view.manifest
    given = command or manifest.command or "unknown"
    parts = ["<h2>Where these numbers come from</h2>", f'<pre class="wrap">{escape(given)}</pre>']
    parts += [f"<h3>{title.capitalize()}</h3>\n{_pairs(pairs)}" for title, pairs in manifest.origin.items()]
    parts.append(f"<details><summary>Manifest</summary>{_pairs(manifest.details)}</details>")
    parts.append(f"<details open><summary>Resolved study</summary><pre>{escape(to_yaml(view.study))}</pre></details>")
    return "\n".join(parts)


def _pairs(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"<p>{escape(_plain(value))}</p>"
    pairs = {str(key).replace("_", " "): _plain(inner) for key, inner in _readable(value).items()}
    return f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{escape(inner)}</dd>' for key, inner in pairs.items())}</dl>"


def _readable(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The same pairs, with bytes in the units of a reader."""
    units = {key: key.removesuffix("_bytes") for key in pairs}
    return {units[key]: bytes_words(value) if units[key] != key else value for key, value in pairs.items()}


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(inner) for inner in value) or "none"
    return "none" if value is None else str(value)
