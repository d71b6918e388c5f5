"""Files with the names of version 0.1 are read, with the same content hashes, and a person is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fake_inputs import changed, write

from subsettune import Policy, bundle
from subsettune.cli.policy_file import read_policy
from subsettune.errors import ConfigError
from subsettune.study.results.folder import StudyFolder
from subsettune.study.search.journal import Journal
from subsettune.study.spec.definition import parse
from subsettune.study.spec.space import Space
from subsettune.study.spec.yaml_file import read

OLD: dict[str, Any] = {
    "entry": {"choice": ["keep", "shrink_perturb"]},
    "shrink": {"uniform": [0.2, 1.0]},
    "noise": {"choice": [0.0, 0.01], "when": {"entry": "shrink_perturb"}},
}
NEW: dict[str, Any] = {
    "transition": {"choice": ["keep", "shrink_perturb"]},
    "shrink_perturb.shrink": {"uniform": [0.2, 1.0]},
    "shrink_perturb.noise": {"choice": [0.0, 0.01], "when": {"transition": "shrink_perturb"}},
}
OLD_PHASES = [{"passes": 1}, {"passes": 1, "entry": "shrink_perturb", "entry_options": {"shrink": 0.5}}]
NEW_PHASES = [{"passes": 1}, {"passes": 1, "transition": "shrink_perturb", "transition_options": {"shrink": 0.5}}]
KEY = "0b1109568e60d226ec3bf2aa78650dfc505062757cc513528b0e7668ddaedd4f"  # as version 0.1 made it


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "subsettune"]


def test_a_policy_with_the_old_keys_is_the_same_policy_with_the_same_key() -> None:
    old, new = Policy.from_mapping({"schema": 1, "phases": OLD_PHASES}), Policy.from_mapping({"phases": NEW_PHASES})
    assert old == new
    assert old.key == new.key == KEY
    plain = new.to_mapping()
    assert (plain["schema"], plain["phases"][1]["transition"]) == (2, "shrink_perturb")
    assert Policy.from_mapping(plain) == new


def test_phases_that_choose_anew_keep_the_start_of_the_first() -> None:
    first = {"passes": 1, "share": 0.5, "reselect": 0.5, "entry": "reset_optimizer"}
    policy = Policy.from_mapping({"phases": [{"passes": 1}, first]})
    assert [phase.transition for phase in policy.phases] == ["keep", "reset_optimizer", "keep"]


def test_a_key_under_both_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^phases\.0\.entry: entry is called transition now, which is there too\."):
        Policy.from_mapping({"phases": [{"passes": 1, "entry": "keep", "transition": "keep"}]})
    with pytest.raises(ConfigError, match=r"^space\.entry: entry is called transition now, which is there too\."):
        parse(changed({"space.entry": "keep", "space.transition": "keep"}))


def test_a_space_with_the_old_coordinates_is_the_same_space() -> None:
    rest = {"budget": 0.5, "switch": 0.5, "subset_share": 0.5}
    assert Space.from_mapping({**rest, **OLD}) == Space.from_mapping({**rest, **NEW})


def test_a_study_file_is_read_and_its_reader_told_once_a_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = write(tmp_path / "old.yaml", {f"space.{name}": value for name, value in OLD.items()})
    new = changed({})
    new["space"] |= NEW
    with caplog.at_level(logging.WARNING):
        assert read(old) == parse(new)
    assert _told(caplog) == [
        f"{old}: {name} is called {now} now. The old name is read for one more release: rename it."
        for name, now in (
            ("entry", "transition"),
            ("noise", "shrink_perturb.noise"),
            ("shrink", "shrink_perturb.shrink"),
        )
    ]


def test_a_policy_file_of_a_person_is_told_of_and_one_of_ours_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs, yaml = tmp_path / "ours.json", tmp_path / "theirs.json", tmp_path / "theirs.yaml"
    ours.write_text(json.dumps({"schema": 1, "phases": OLD_PHASES}))
    theirs.write_text(json.dumps({"phases": OLD_PHASES}))
    yaml.write_text("phases: [{passes: 1}, {passes: 1, entry: shrink_perturb, entry_options: {shrink: 0.5}}]")
    with caplog.at_level(logging.WARNING):
        assert bundle.read_policy(ours).key == KEY
        assert _told(caplog) == []
        assert bundle.read_policy(theirs).key == read_policy(str(yaml)).key == KEY
    assert [line.split(": ")[:2] for line in _told(caplog)] == [
        [str(theirs), "entry is called transition now. The old name is read for one more release"],
        [str(theirs), "entry_options is called transition_options now. The old name is read for one more release"],
        [str(yaml), "entry is called transition now. The old name is read for one more release"],
        [str(yaml), "entry_options is called transition_options now. The old name is read for one more release"],
    ]


def test_a_journal_of_the_old_space_goes_on(tmp_path: Path) -> None:
    import optuna

    storage = optuna.storages.InMemoryStorage()
    Journal(storage, "a", {"space": {"budget": 0.5, **OLD}})
    Journal(storage, "a", {"space": {"budget": 0.5, **NEW}})  # the same identity


def test_an_objective_that_no_search_ever_minimised(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Compute in either unit was what it said and did; seconds were never minimised, whatever the file said."""
    for written in ("flops", "passes"):
        caplog.clear()
        study = read(write(tmp_path / "s.yaml", {"study.objective": written}))
        assert study == parse(changed({}))
        assert caplog.messages == [
            f"{tmp_path}/s.yaml: objective means nothing any more: compute is what is minimised. Remove it."
        ]
    with pytest.raises(ConfigError) as caught:
        parse(changed({"study.objective": "seconds"}))
    assert str(caught.value) == (
        "study.objective: objective must be one of flops, passes, got 'seconds'. Studies minimise training compute, "
        "whose cost is known before a run; seconds are not, and are told beside it, by `plan` before the study and by "
        "its report after. Remove the key."
    )


def test_a_study_on_record_opens_whatever_objective_it_named(tmp_path: Path) -> None:
    study = parse(changed({}))
    folder = StudyFolder(str(tmp_path), "a")
    folder.begin(study)
    manifest = json.loads(folder.folder.read("manifest.json"))
    manifest["study"]["study"]["objective"] = "seconds"
    folder.folder.write("manifest.json", json.dumps(manifest).encode())
    assert StudyFolder(str(tmp_path), "a").open().manifest.study == study
