"""cluster.yaml passes everything that Ray checks before it talks to a cloud, and says what it does."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from places import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config

FILE = ROOT / "cluster.yaml"
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(ROOT)
    loaded: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return loaded


def check(cluster: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(cluster, SCHEMA)
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def test_it_passes_rays_own_checks(cluster: dict[str, Any]) -> None:
    prepared = check(cluster)
    assert prepared["docker"]["image"] == cluster["docker"]["image"]
    assert prepared["available_node_types"]["gpu"]["resources"]["GPU"] == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.update(min_workers=1),
        lambda c: c["available_node_types"]["gpu"].pop("resources"),
        lambda c: c["available_node_types"]["gpu"]["resources"].update(GPU=0.5),
        lambda c: c["available_node_types"]["gpu"].update(docker={"image": "rayproject/ray:latest"}),
        lambda c: c.update(head_node_type="no-such-type"),
    ],
    ids=["min_workers at the top", "no resources", "half a GPU", "an image of a node type", "no head"],
)
def test_the_checks_find_what_they_should(cluster: dict[str, Any], spoil: Any) -> None:
    spoil(cluster)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check(cluster)


def test_the_image_has_the_ray_that_the_constraints_pin(cluster: dict[str, Any]) -> None:
    found = re.fullmatch(r"rayproject/ray:(\d+\.\d+\.\d+)-py(\d)(\d+)-gpu", cluster["docker"]["image"])
    assert found is not None, cluster["docker"]["image"]
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ours,) = [r for r in map(Requirement, project["optional-dependencies"]["tune"]) if r.name == "ray"]
    assert found[1] == pinned
    assert Version(found[1]) in ours.specifier
    assert Version(f"{found[2]}.{found[3]}") >= Version(project["requires-python"].removeprefix(">="))


def test_every_node_gets_this_package_with_pinned_versions(cluster: dict[str, Any]) -> None:
    (install,) = cluster["setup_commands"]
    assert "--constraint ~/subsettune/constraints.txt ~/subsettune[tune] " in install
    assert cluster["file_mounts"] == {"~/subsettune": "."}
    assert "**/.venv" in cluster["rsync_exclude"]


def test_it_bounds_the_bill_and_lets_a_stopped_job_finish_writing(cluster: dict[str, Any]) -> None:
    assert cluster["max_workers"] <= 4
    assert cluster["available_node_types"]["gpu"]["min_workers"] == 0
    assert cluster["idle_timeout_minutes"] <= 15
    head = " ".join(cluster["head_start_ray_commands"])
    assert "RAY_JOB_STOP_SIGNAL=SIGINT" in head
    wait = re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", head)
    assert wait is not None
    assert int(wait[1]) >= 30


def test_the_commands_in_its_comments_exist() -> None:
    from subsettune.cli.parser import make_parser

    text = re.sub(r"\\\n#\s+", "", FILE.read_text())
    (command,) = re.findall(r"'subsettune (tune [^']+)'", text)
    options = make_parser().parse_args(command.split())
    assert options.address == "auto"
    assert options.storage == "s3://MY-BUCKET/runs"
