"""A study whose storage is an object store: a real server that speaks S3, on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest

from subsettune import cli, config
from subsettune.api import tune
from subsettune.bundle import Bundle
from subsettune.errors import StudyError
from subsettune.storage import Folder, inside
from subsettune.study.options import TuneOptions
from subsettune.study.results.folder import StudyFolder

pytestmark = [
    # The server keeps a socket for each connection that pyarrow holds open until the process ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|boto3|werkzeug).*"),
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of a folder in a fresh bucket; what it needs to be reached is in the query and the environment."""
    server_module = pytest.importorskip("moto.server")
    import boto3

    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    patch = pytest.MonkeyPatch()
    for name, value in {**names, "ec2_metadata_disabled": "true"}.items():
        variable = {"region_name": "AWS_DEFAULT_REGION", "ec2_metadata_disabled": "AWS_EC2_METADATA_DISABLED"}
        patch.setenv(variable.get(name, name.upper()), value)
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **names).create_bucket(Bucket="bucket")
    yield f"s3://bucket/runs?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1"
    server.stop()
    patch.undo()


def mapping(data: dict[str, str], **settings: Any) -> dict[str, Any]:
    space = {"budget": {"log": [0.3, 0.9]}, "arm": {"choice": ["full", "subset"]}, "switch": 0.3, "subset_share": 0.5}
    return {
        "task": {**config.to_plain(fakes.image_task(data)), "tolerance": 0.5},
        "space": {**space, "selector": {"choice": ["random", "stratified"]}},
        "study": {"trials": 3, "seeds": 3, "max_seeds": 3, "candidates": 1, "sampler": "random", **settings},
    }


def test_a_name_goes_before_the_query() -> None:
    assert inside("s3://b/runs?region=x&scheme=http", "a/b") == "s3://b/runs/a/b?region=x&scheme=http"
    assert inside("s3://b/runs/", "a") == "s3://b/runs/a"
    assert inside("/here", "a") == "/here/a"
    assert inside("here", "a") == str(Path.cwd() / "here" / "a")


@pytest.mark.slow
def test_a_study_lives_on_an_object_store(
    bucket: str, tiny_data: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = TuneOptions(storage=bucket, executor="inline", command="subsettune tune x.yaml")
    view = tune(mapping(tiny_data), run_id="one", options=options).view
    names = (Folder.at(bucket) / "one").names()
    assert {"manifest.json", "study.yaml", "report.html", "bundle", "optuna.journal", "trials.parquet"} <= set(names)
    segments = (Folder.at(bucket) / "one" / "optuna.journal").names()
    assert segments[0] == "00000000.jsonl"
    assert segments == sorted(segments)
    assert view.summary.verified

    assert cli.main(["show", "one", "--storage", bucket, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bundle"] == inside(bucket, "one/bundle")
    assert cli.main(["export", "one", str(tmp_path / "bundle"), "--storage", bucket]) == 0
    assert Bundle.load(str(tmp_path / "bundle")).policy == Bundle.load(shown["bundle"]).policy

    more = tune(mapping(tiny_data, trials=5), run_id="one", options=options).view
    assert [t.name for t in more.trials] == [f"trial-{i:04d}" for i in range(5)]
    assert more.trials[:3] == view.trials
    assert more.reference == view.reference


def test_an_interrupted_run_goes_on_from_its_checkpoint_there(bucket: str, tiny_data: dict[str, str]) -> None:
    from subsettune.train import run

    task = fakes.image_task(tiny_data)
    policy = fakes.two_phases(1.0, 2.0)
    options = fakes.options(checkpoints=inside(bucket, "two/tune/checkpoints"))

    def interrupt(point: Any) -> bool:
        if point.share > 0.5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(task, policy, 0, report=interrupt, options=options)
    names = Folder.at(inside(bucket, "two/tune/checkpoints")).names()
    assert sorted(Path(name).suffix for name in names) == [".checkpoint", ".mark"]
    resumed, whole = run(task, policy, 0, options=options), run(task, policy, 0, options=fakes.options())
    assert (resumed.metrics, resumed.ledger) == (whole.metrics, whole.ledger)
    assert resumed.repeated_flops > 0


@pytest.mark.slow
def test_a_missing_segment_of_the_journal_is_told_and_nothing_is_lost(bucket: str, tiny_data: dict[str, str]) -> None:
    options = TuneOptions(storage=bucket, executor="inline")
    tune(mapping(tiny_data), run_id="three", options=options)
    folder = Folder.at(bucket) / "three"
    content = folder.read("optuna.journal/00000001.jsonl")
    folder.remove("optuna.journal/00000001.jsonl")
    with pytest.raises(StudyError, match=r"the journal s3://bucket/runs/three/optuna.journal lacks a segment"):
        tune(mapping(tiny_data, trials=4), run_id="three", options=options)
    folder.write("optuna.journal/00000001.jsonl", content)
    assert len(tune(mapping(tiny_data, trials=4), run_id="three", options=options).view.trials) == 4
    assert len(StudyFolder(bucket, "three").open().records("trial")) == 4


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*", "ignore::FutureWarning:ray.*")
def test_runs_of_a_cluster_write_there_too(bucket: str, tiny_data: dict[str, str]) -> None:
    """Ray: Tune and the workers open the store themselves."""
    study = mapping(tiny_data)
    there = tune(study, run_id="four", options=TuneOptions(storage=bucket)).view
    here = tune(study, run_id="five", options=TuneOptions(storage=bucket, executor="inline")).view
    assert [(t.metric, t.cause) for t in there.trials] == [(t.metric, t.cause) for t in here.trials]
    assert (Folder.at(bucket) / "four" / "tune").names() == []
