"""The report: one self-contained HTML page that opens from a file, without a network, in any browser.

The part of plotly.js that it needs is inlined once; the page's content security policy forbids every fetch. Tables are
plain HTML and stay readable without scripts. All text that comes from a study is escaped.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

import jinja2
from markupsafe import Markup, escape

from subsettune.report import early_stop, glossary
from subsettune.report.components import components_legend
from subsettune.report.costs import cost_sentences, stages_note, times_note
from subsettune.report.drawing import Figure
from subsettune.report.evidence import how_tested
from subsettune.report.figures import figures
from subsettune.report.page_tables import page_tables
from subsettune.report.tables import beside_text, counts_text, known_before_sentences, legend, tuning_text
from subsettune.study.results.view import StudyView
from subsettune.study.spec.yaml_file import to_yaml
from subsettune.text import bytes_words, metric_name, sentence

MOST_FAILURES = 8  # more of them are folded away


def write_report(view: StudyView, target: str | Path | TextIO, usage: str = "") -> None:
    """Write the report of a study, finished or not.

    Args:
        view: the study.
        target: a local path, replaced as a whole once the page is complete, or a text stream.
        usage: how the policy that was found is used, as Markdown of paragraphs and code.
    """
    text = page(view, usage)
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


def page(view: StudyView, usage: str = "") -> str:
    """The whole report as one text of HTML, about 1.3 MB, nearly all of it plotly.js."""
    drawn, (lead, _, rest) = figures(view), view.summary.headline.partition("; ")
    tables = page_tables(view)
    return _template().render(
        view=view,
        lead=f"{lead.removesuffix('.')}.",
        rest=sentence(rest),
        sections=_sections(view, drawn, {**tables, "use": usage}),
        **tables,
        style=_asset("style.css"),
        script=_asset("script.js"),
        plotly=_asset("plotly-basic.min.js") if drawn else "",
        status_colour=_status_colour(view),
        usage=_parts(usage),
        beside=beside_text(view),
        legend=legend(view),
        counts=counts_text(view),
        tuning=tuning_text(view),
        known_before=known_before_sentences(view),
        figures={figure.name: figure for figure in drawn},
        figures_json=figures_json(drawn),
        evidence_intro=how_tested(view),
        stages_legend=stages_note(view),
        costs_legend=times_note(view),
        cost_sentences=cost_sentences(view),
        early_stops_legend=early_stop.note(view),
        seeds_title=f"Test {metric_name(view.study.task.metric)} seed by seed",
        components_legend=components_legend(view),
        most_failures=MOST_FAILURES,
        words=glossary.words(view.unit),
        command=view.manifest.command or "unknown",
        origin={title: _pairs(pairs) for title, pairs in view.manifest.origin.items()},
        details=_pairs(view.manifest.details),
        study=to_yaml(view.study),
    )


def _sections(view: StudyView, drawn: Sequence[Figure], contents: Mapping[str, object]) -> dict[str, str]:
    """Headings of the sections that there is something in, by the name that a link leads to."""
    titles = {figure.name: figure.title for figure in drawn}
    sections = {
        "data": ("Look at the data before you believe a number", view.manifest.data_warnings),
        "result": (titles.get("gain", "How it stands"), True),
        "use": ("How to use it", contents["use"]),
        "evidence": ("Evidence", contents["evidence"]),
        "search": ("What the search tried", "search" in titles or "compute" in titles),
        "curves": ("Learning curves", "curves" in titles),
        "components": ("Which components paid for themselves?", contents["components"]),
        "price": ("What tuning cost, by stage", contents["stages"]),
        "time": ("How long compute takes", contents["costs"]),
        "early": (early_stop.TITLE, contents["early_stops"]),
        "failures": ("Runs without a result", contents["failures"]),
        "words": ("Words on this page", True),
        "origin": ("Where these numbers come from", True),
    }
    return {name: title for name, (title, has_content) in sections.items() if has_content}


def _parts(usage: str) -> list[tuple[str, str | Markup]]:
    """Paragraphs (`text`) and code (its language) of Markdown that has nothing else."""
    found: list[tuple[str, str | Markup]] = []
    for i, part in enumerate(usage.split("```")):
        if i % 2:
            language, _, code = part.partition("\n")
            found.append((language, code.rstrip()))
        else:
            found += [("text", _unbroken(one)) for one in part.strip().split("\n\n") if one]
    return found


def _asset(name: str) -> str:
    return (resources.files("subsettune.report") / "assets" / name).read_text(encoding="utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("subsettune.report", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"unbroken": _unbroken, "explained": glossary.explained, "heading": glossary.heading}
    environment.filters |= {"anchor": glossary.anchor, "scannable": _scannable}
    return environment.get_template("page.html.j2")


def _unbroken(text: str | Markup) -> Markup:
    """Escaped, with a number and its per cent sign kept on one line, and what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)).replace(" %", "&nbsp;%")))


def _scannable(text: str) -> Markup:
    """Escaped, with what stands in brackets set back, so that the rest can be taken in at a glance."""
    return Markup(re.sub(r"\([^()]*\)", lambda found: f'<span class="aside">{found[0]}</span>', str(_unbroken(text))))


def figures_json(drawn: Sequence[Figure]) -> str:
    """All figures as JSON that is safe inside a script element: no `<`, no NaN."""
    plain = {figure.name: {"data": figure.data, "layout": figure.layout} for figure in drawn}
    return json.dumps(plain, allow_nan=False).replace("<", "\\u003c")


def _status_colour(view: StudyView) -> str:
    if view.summary.status != "finished":
        return ""
    return "good" if view.summary.verified else "bad"


def _pairs(value: object) -> str | dict[str, str]:
    if not isinstance(value, Mapping):
        return _plain(value)
    return {str(key).replace("_", " "): _plain(inner) for key, inner in _readable(value).items()}


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
