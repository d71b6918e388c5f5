from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tracked import tracked

from subsettune.errors import ConfigError
from subsettune.integrations.tensorboard import TensorBoardCallback

pytestmark = pytest.mark.filterwarnings("default")  # those of TensorBoard are not ours


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def _hyperparameters(events: EventAccumulator) -> Any:
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    return HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.parametrize("is_given", [False, True])
def test_each_trial_has_its_curve_and_hyperparameters(
    tmp_path: Path, is_given: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given = tmp_path / "events" if is_given else None
    tracked(tmp_path, [TensorBoardCallback(given)], 2)
    found = tracked(tmp_path, [TensorBoardCallback(given)], 3)
    assert [record for record in caplog.records if record.name == "subsettune.callbacks"] == []
    folder = tmp_path / "events" / "one" if is_given else Path(found.folder, "tensorboard")
    assert sorted(path.name for path in folder.iterdir()) == ["study", *(trial.name for trial in found.view.trials)]
    for trial in found.view.trials:
        events = read(folder / trial.name)
        assert len(list((folder / trial.name).iterdir())) <= 2  # the events and those of the hyperparameters
        points, curve = events.Scalars("curve/metric"), trial.curve
        assert [point.step for point in points] == [round(1000 * p.flops / found.facts.reference_flops) for p in curve]
        assert [point.value for point in points] == pytest.approx([point.metric for point in curve])
        assert events.Scalars("result/metric")[0].value == pytest.approx(trial.metric)
        given_values = _hyperparameters(events)
        assert given_values["budget"].number_value == pytest.approx(trial.coordinates["budget"])
        assert given_values["cause"].string_value == trial.cause
    study = read(folder / "study")
    assert study.Scalars("study/saving")[-1].value == pytest.approx(found.summary.best.saving)


def test_a_folder_on_an_object_store_is_refused() -> None:
    message = "folder must be on this machine, got 's3://bucket/events'. Copy it there when the study has ended."
    with pytest.raises(ConfigError, match=message):
        TensorBoardCallback("s3://bucket/events")
