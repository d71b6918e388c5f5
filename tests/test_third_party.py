"""What another package brings shows up wherever our own components do: one class each, and nothing else is changed."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_bundle
import pytest
from fake_inputs import changed

from subsettune import bundle, registry
from subsettune.api import tune
from subsettune.bundle import export
from subsettune.cli import main
from subsettune.data import DataPaths
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy
from subsettune.report import components, html
from subsettune.report.render import render
from subsettune.study.options import TuneOptions
from subsettune.study.plan import plan
from subsettune.study.results.view import StudyView
from subsettune.study.spec.definition import Study, parse
from subsettune.text import describe

POINTS = """
[subsettune.selectors]
latest = third_party:Latest

[subsettune.orders]
ascending = third_party:Ascending

[subsettune.transitions]
damp = third_party:Damp
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """How the three are named in a file."""

    selector: str
    order: str
    transition: str

    @property
    def all(self) -> tuple[str, str, str]:
        return self.selector, self.order, self.transition


def _install(folder: Path) -> None:
    """A package without files of its own, whose entry points name what is importable anyway."""
    info = folder / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)


@pytest.fixture(scope="module", params=["entry points", "paths"])
def names(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "paths":
        yield Names(selector="third_party:Latest", order="third_party:Ascending", transition="third_party:Damp")
        return
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("site")
        _install(folder)
        patch.syspath_prepend(str(folder))
        yield Names(selector="latest", order="ascending", transition="damp")


@pytest.fixture(scope="module")
def study(names: Names, tiny_data: dict[str, str]) -> Study:
    raw = changed(
        {
            "task.data": {"source": tiny_data["images"]},
            "task.tolerance": 0.6,
            "space.budget": {"choice": [0.5, 0.8]},
            "space.switch": 0.5,
            "space.subset_share": 0.3,
            "space.selector": {"choice": ["random", names.selector]},
            "space.order": {"choice": ["uniform", names.order]},
            "space.transition": {"choice": ["keep", names.transition]},
            "study.trials": 6,
            "study.seeds": 2,
            "study.max_seeds": 2,
            "study.ablation_seeds": 2,
        }
    )
    raw["space"][f"{names.transition}.factor"] = 0.95
    return parse(raw)


@pytest.fixture(scope="module")
def view(study: Study, tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    folder = tmp_path_factory.mktemp("study")
    places = DataPaths(cache=str(folder / "cache"))
    return tune(
        study,
        run_id="a",
        options=TuneOptions(storage=str(folder / "runs"), places=places, executor="inline", device="cpu"),
    ).view


def test_they_are_in_the_space_and_the_plan(study: Study, names: Names) -> None:
    assert tuple(component.name for component in study.contenders) == names.all
    planned = plan(study)
    assert planned["runs"]["ablation"]["runs"] == 2 * 2 * len(names.all)


@pytest.mark.slow
def test_a_study_tries_them_and_tells_whether_they_paid(view: StudyView, names: Names) -> None:
    assert tuple(component.name for component in view.ablation) == names.all
    assert {row.verdict for row in view.ablation.values()} <= {"paid", "not_paid", "no_difference"}
    table = render([components.components_table(view)])
    assert all(f"{kind} {name}" in table for kind, name in zip(registry_kinds(), names.all, strict=True))


def registry_kinds() -> tuple[str, ...]:
    return tuple(known.what for known in (registry.SELECTORS, registry.ORDERS, registry.TRANSITIONS))


def test_the_report_shows_them(view: StudyView, names: Names) -> None:
    page = io.StringIO()
    html.write_report(view, page)
    assert all(name in page.getvalue() for name in names.all)


def _policy(names: Names, base: Policy) -> Policy:
    first, *_, last = base.phases
    order: dict[str, Any] = {"order": names.order, "order_options": {}}
    begin = dataclasses.replace(first, selector=names.selector, selector_options={}, **order)
    end = Phase(passes=last.passes, transition=names.transition, transition_options={"factor": 0.5}, **order)
    return Policy(phases=(begin, end), recipe=base.recipe)


def test_a_bundle_page_says_what_they_do(names: Names, tmp_path: Path) -> None:
    view = fake_bundle.view_of("subset_wins", "accuracy")
    winner = view.candidates[view.manifest.winner]
    policy = _policy(names, winner.policy)
    view = dataclasses.replace(
        view, candidates={**view.candidates, winner.name: dataclasses.replace(winner, policy=policy)}
    )
    export.export_study(view, winner.name, [fake_bundle.phase_subset(policy)], seed=7, target=tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert all(name in page for name in names.all)
    assert bundle.Bundle.load(tmp_path).policy == policy
    assert describe(policy).endswith(f"{names.transition} factor 0.5")


@pytest.mark.parametrize("command", ["selectors", "orders", "transitions"])
def test_what_is_installed_is_listed(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _install(tmp_path)
        patch.syspath_prepend(str(tmp_path))
        assert main([command]) == 0
    installed = {"selectors": "latest", "orders": "ascending", "transitions": "damp"}[command]
    assert f"\n{installed} " in capsys.readouterr().out


@pytest.mark.parametrize("known", [registry.SELECTORS, registry.ORDERS, registry.TRANSITIONS], ids=lambda r: r.what)
def test_a_name_that_no_package_gives_here_is_refused(known: registry.Registry) -> None:
    load: Callable[[str], Any] = known.load
    with pytest.raises(ConfigError, match=rf"^{known.what} must be one of {next(iter(known))}, .*, got 'latest'"):
        load("latest")
