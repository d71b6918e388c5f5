from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import optuna_dashboard
import pytest
from optuna_dashboard._storage_url import get_storage  # what the command does with its argument
from tracked import tracked

pytestmark = pytest.mark.filterwarnings("default")  # those of the dashboard are not ours


def test_it_shows_names_feasibility_and_curves_and_writes_nothing(tmp_path: Path) -> None:
    found = tracked(tmp_path, [], 4)
    journal = Path(found.folder, "optuna.journal")
    before = journal.read_bytes()
    app = optuna_dashboard.wsgi(get_storage(str(journal)))
    (study,) = get(app, "/api/studies")["study_summaries"]
    assert study["study_name"] == "one"
    shown = get(app, f"/api/studies/{study['study_id']}")
    assert shown["objective_names"] == ["compute_share"]
    assert shown["has_intermediate_values"]
    assert len(shown["trials"]) == 4
    for trial, run in zip(shown["trials"], found.view.trials, strict=True):
        assert trial["values"] == [run.coordinates["budget"]]
        assert [value <= 0 for value in trial["constraints"]] == [found.reaches(run.metric)]
        assert trial["intermediate_values"][-1] == {"step": 1000, "value": run.metric}
        assert {param["name"] for param in trial["params"]} <= set(run.coordinates)
    assert journal.read_bytes() == before


def get(app: Any, path: str) -> Any:
    """What a browser would get."""
    request: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "wsgi.url_scheme": "http",
    }
    request |= {"SERVER_NAME": "here", "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr}
    statuses: list[str] = []
    body = b"".join(app(request, lambda status, headers, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    return json.loads(body)
