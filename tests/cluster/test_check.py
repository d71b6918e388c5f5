"""Files for clusters: the shipped ones are sound once filled in, and each thing that would fail is found at once."""

from __future__ import annotations

import copy
import io
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from places import ROOT

import subsettune
from subsettune.cli import main
from subsettune.cluster import check as check_module
from subsettune.cluster.check import check
from subsettune.errors import ConfigError

LAUNCHER, MACHINES, JOB = ROOT / "cluster.yaml", ROOT / "deploy" / "machines.yaml", ROOT / "deploy" / "rayjob.yaml"
FILLED = {
    "ami-CHANGE": "ami-0123456789abcdef0",
    "::CHANGE:": "::123456789012:",
    "CHANGE-REGISTRY": "registry.example.com",
    "CHANGE-BUCKET": "bucket",
    "CHANGE-HEAD": "10.0.0.1",
    "CHANGE-WORKER-": "10.0.0.",
    "CHANGE-USER": "me",
}
Spoil = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def _home_with_a_token(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 40)
    monkeypatch.setenv("HOME", str(home))


def filled(file: Path) -> str:
    text = file.read_text()
    for place, value in FILLED.items():
        text = text.replace(place, value)
    return text


def spoiled(file: Path, folder: Path, spoil: Spoil) -> Path:
    content = yaml.safe_load(filled(file))
    before = copy.deepcopy(content)
    spoil(content)
    assert content != before
    (folder / file.name).write_text(yaml.safe_dump(content))
    return folder / file.name


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(path)
    return [str(mistake) for mistake in caught.value.mistakes]


# --- the shipped files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [LAUNCHER, MACHINES, JOB], ids=lambda file: file.name)
def test_a_shipped_file_is_sound_once_it_is_filled_in(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = re.findall(r"^\s*[^#\n]*\bami-CHANGE|^[^#\n]*CHANGE", file.read_text(), re.MULTILINE)
    found = mistakes(file)
    assert len({re.match(r"line \d+", words)[0] for words in found}) == len(asked)
    assert all("must be filled in, got" in words for words in found)
    (tmp_path / file.name).write_text(filled(file))
    assert main(["cluster", "check", str(tmp_path / file.name)]) == 0
    kind = "RayJob" if file is JOB else "launcher file"
    assert capsys.readouterr().out == f"{tmp_path / file.name}: a sound {kind}.\n"


def test_versions_in_the_shipped_files_are_those_of_the_project() -> None:
    (pinned,) = re.findall(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ours,) = [r for r in map(Requirement, project["optional-dependencies"]["tune"]) if r.name == "ray"]
    assert Version(pinned) in ours.specifier
    for file in (LAUNCHER, MACHINES, JOB):
        text = file.read_text()
        images = re.findall(r"rayproject/ray:(\d+\.\d+\.\d+)-py(\d)(\d+)-gpu", text)
        assert images, file
        for image in images:
            assert image[0] == pinned
            assert Version(f"{image[1]}.{image[2]}") >= Version(project["requires-python"].removeprefix(">="))
        assert set(re.findall(r'"subsettune\[tune\]==([\d.]+)"', text)) == {subsettune.__version__}
        assert set(re.findall(r'"ray\[default\]==([\d.]+)"', text)) == {pinned}


def test_the_launcher_file_bounds_the_bill_and_lets_a_stopped_job_finish_writing() -> None:
    cluster = yaml.safe_load(LAUNCHER.read_text())
    assert cluster["max_workers"] <= 4
    assert cluster["idle_timeout_minutes"] <= 15
    assert {kind["min_workers"] for name, kind in cluster["available_node_types"].items() if name != "head"} == {0}
    head = " ".join(cluster["head_start_ray_commands"])
    assert "RAY_JOB_STOP_SIGNAL=SIGINT" in head
    assert int(re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", head)[1]) >= 30


def test_the_commands_in_its_comments_exist() -> None:
    from subsettune.cli.parser import make_parser

    text = re.sub(r"\\\n#\s+", "", LAUNCHER.read_text())
    (command,) = re.findall(r"'subsettune (tune [^']+)'", text)
    options = make_parser().parse_args(command.replace('"', "").split())
    assert (options.address, options.storage) == ("auto", "s3://MY-BUCKET/runs?region=us-west-2")
    entrypoint = yaml.safe_load(JOB.read_text())["spec"]["entrypoint"]
    options = make_parser().parse_args(entrypoint.split()[1:])
    assert (options.address, options.run_id) == ("auto", "nightly")


# --- what is found ------------------------------------------------------------------------------------------------


def gpu(cluster: dict[str, Any]) -> dict[str, Any]:
    return cluster["available_node_types"]["gpu"]


def command(cluster: dict[str, Any], which: str, old: str, new: str) -> None:
    key = f"{which}_start_ray_commands"
    cluster[key] = [line.replace(old, new) for line in cluster[key]]


OF_LAUNCHERS: dict[str, tuple[Spoil, str]] = {
    "min_workers at the top": (lambda c: c.update(min_workers=1), "'min_workers' was unexpected"),
    "no resources": (lambda c: gpu(c).pop("resources"), "'resources' is a required property"),
    "half a GPU": (
        lambda c: gpu(c)["resources"].update(GPU=0.5),
        r"available_node_types.gpu.resources.GPU: 0.5 is not",
    ),
    "an image of a node type": (lambda c: gpu(c).update(docker={"image": "a"}), "'image' was unexpected"),
    "no head": (lambda c: c.update(head_node_type="none"), "Ray refuses it: .*head_node_type"),
    "another Ray": (
        lambda c: c["docker"].update(image="rayproject/ray:2.9.0-py311-gpu"),
        "docker.image: image must be of Ray 2.60.0, the one installed here, got 'rayproject/ray:2.9.0-py311-gpu'",
    ),
    "another Python": (
        lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py39-gpu"),
        r"image must be of Python 3.\d+, the one here",
    ),
    "no region": (lambda c: c["provider"].pop("region"), "provider.*: region must be given, got None"),
    "an old machine image": (
        lambda c: gpu(c)["node_config"].update(ImageId="latest_dlami"),
        "ImageId must be a machine image with NVIDIA's driver 580 or newer, got 'latest_dlami'",
    ),
    "more workers than in all": (lambda c: gpu(c).update(max_workers=9), "max_workers must be at most 4, that of"),
    "more at least than at most": (lambda c: gpu(c).update(min_workers=5), "min_workers must be at most 4"),
    "nothing to run on": (lambda c: c.update(max_workers=0), "max_workers must be 1 or more, got 0"),
    "a head that never grows": (
        lambda c: command(c, "head", "--autoscaling-config=~/ray_bootstrap_config.yaml", ""),
        "head_start_ray_commands must have --autoscaling-config=~/ray_bootstrap_config.yaml, or no worker ever comes",
    ),
    "no head at all": (lambda c: c.update(head_start_ray_commands=["ray stop"]), "must have `ray start --head`"),
    "workers without an address": (
        lambda c: command(c, "worker", "--address=$RAY_HEAD_IP:6379", ""),
        "must have `ray start --address=",
    ),
    "another port": (lambda c: command(c, "worker", ":6379", ":6380"), "must name port 6379, the head's"),
    "another token": (lambda c: command(c, "worker", "RAY_AUTH_MODE=token", ""), "set RAY_AUTH_MODE as the head does"),
    "no token": (lambda c: c.pop("file_mounts"), "file_mounts must be with the token"),
    "a mount of nothing": (
        lambda c: c["file_mounts"].update({"~/code": "./nowhere"}),
        r"file_mounts\['~/code'\] must be a file or folder that is there, got './nowhere'",
    ),
    "nothing installed": (lambda c: c.update(setup_commands=[]), "setup_commands must be such that subsettune is"),
    "workers without rights": (
        lambda c: gpu(c)["node_config"].pop("IamInstanceProfile"),
        "available_node_types.gpu.node_config: IamInstanceProfile must be given for workers, got None",
    ),
}


@pytest.mark.parametrize("name", OF_LAUNCHERS)
def test_what_is_wrong_with_a_launcher_file(name: str, tmp_path: Path) -> None:
    spoil, words = OF_LAUNCHERS[name]
    found = mistakes(spoiled(LAUNCHER, tmp_path, spoil))
    assert any(re.search(words, mistake) for mistake in found), found


def test_machines_of_ones_own_have_no_types_of_nodes_and_share_a_folder(tmp_path: Path) -> None:
    def types(cluster: dict[str, Any]) -> None:
        cluster["available_node_types"] = {"a": {"resources": {}, "node_config": {}}}

    (told,) = mistakes(spoiled(MACHINES, tmp_path, types))
    assert "Ray refuses it" in told
    assert "available_node_types is not supported for on-premise clusters" in told
    (told,) = mistakes(spoiled(MACHINES, tmp_path, lambda c: c["docker"]["run_options"].pop()))
    assert "setup_commands must be such that nodes share a storage" in told


def job(content: dict[str, Any]) -> dict[str, Any]:
    return content["spec"]


def group(content: dict[str, Any]) -> dict[str, Any]:
    return content["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]


def pod(content: dict[str, Any]) -> dict[str, Any]:
    return group(content)["template"]["spec"]["containers"][0]


def entrypoint(content: dict[str, Any], old: str, new: str) -> None:
    job(content)["entrypoint"] = job(content)["entrypoint"].replace(old, new)


OF_JOBS: dict[str, tuple[Spoil, str]] = {
    "an old API": (lambda c: c.update(apiVersion="ray.io/v1alpha1"), "must be a RayJob of ray.io/v1, got"),
    "no name": (lambda c: c.pop("metadata"), "metadata must be with a name"),
    "no cluster": (lambda c: job(c).pop("rayClusterSpec"), "spec must be a mapping with rayClusterSpec"),
    "a cluster that stays": (lambda c: job(c).pop("shutdownAfterJobFinishes"), "must be true, got False. Else the"),
    "a mode of submission": (lambda c: job(c).update(submissionMode="Http"), "must be one of K8sJobMode, HTTPMode"),
    "an environment that is no text": (
        lambda c: job(c).update(runtimeEnvYAML={"env_vars": {}}),
        r"spec.runtimeEnvYAML: runtimeEnvYAML must be a text of YAML",
    ),
    "an environment that is no YAML": (lambda c: job(c).update(runtimeEnvYAML="a: [b"), "YAML of a mapping"),
    "another command": (lambda c: job(c).update(entrypoint="python x.py"), "must be a `subsettune tune` command"),
    "no second try for what is a result": (
        lambda c: entrypoint(c, "--accept-no-policy", ""),
        "entrypoint must be with --accept-no-policy where backoffLimit is above 0",
    ),
    "no run id": (lambda c: entrypoint(c, "--run-id nightly", ""), "entrypoint must be with --run-id"),
    "a folder of one pod": (
        lambda c: entrypoint(c, "s3://bucket/runs?region=us-west-2", "/tmp/runs"),
        "entrypoint must be with a --storage that all pods share, got '/tmp/runs'",
    ),
    "another Ray": (lambda c: job(c)["rayClusterSpec"].update(rayVersion="2.9.0"), "rayVersion must be '2.60.0'"),
    "another image": (
        lambda c: pod(c).update(image="rayproject/ray:2.9.0"),
        r"workerGroupSpecs.0.template.spec.containers.0.image: image must be of Ray 2.60.0",
    ),
    "no workers": (lambda c: job(c)["rayClusterSpec"].pop("workerGroupSpecs"), "must be one group or more"),
    "a group without a name": (lambda c: group(c).pop("groupName"), "got 'one without groupName'"),
    "replicas out of bounds": (lambda c: group(c).update(replicas=9), "replicas must be between minReplicas and"),
    "workers that never come": (
        lambda c: job(c)["rayClusterSpec"].pop("enableInTreeAutoscaling"),
        "enableInTreeAutoscaling must be true where",
    ),
    "a number that should be a text": (
        lambda c: group(c).update(rayStartParams={"num-cpus": 4}),
        "num-cpus must be a text, got 4. KubeRay takes texts",
    ),
    "half a GPU": (
        lambda c: pod(c)["resources"]["limits"].update({"nvidia.com/gpu": 0.5}),
        "nvidia.com/gpu must be a whole number, got 0.5",
    ),
}


@pytest.mark.parametrize("name", OF_JOBS)
def test_what_is_wrong_with_a_rayjob(name: str, tmp_path: Path) -> None:
    spoil, words = OF_JOBS[name]
    found = mistakes(spoiled(JOB, tmp_path, spoil))
    assert any(re.search(words, mistake) for mistake in found), found


def test_every_mistake_is_told_in_one_go_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = filled(LAUNCHER).replace("GPU: 1}", "GPU: 0.5}", 1).replace("  region: us-west-2", "  zone: a", 1)
    text = text.replace("max_workers: 4\n    priority", "max_workers: 8\n    priority", 1)
    (tmp_path / "cluster.yaml").write_text(text)
    assert main(["cluster", "check", str(tmp_path / "cluster.yaml")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    lines = [int(re.match(r"error: .*cluster.yaml: line (\d+), ", line)[1]) for line in told]
    assert lines == sorted(lines)
    assert [text.splitlines()[line - 1].split(":")[0].strip() for line in lines] == [
        "provider",
        "resources",
        "max_workers",
    ]


@pytest.mark.parametrize(
    ("text", "words"), [("- a\n", "must be a launcher file or a RayJob"), ("a: [", "not valid YAML")]
)
def test_files_of_another_kind(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        check(tmp_path / "cluster.yaml")


def test_without_a_file_it_looks_at_cluster_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    errors = io.StringIO()
    monkeypatch.setattr("sys.stderr", errors)
    assert main(["cluster", "check"]) == 2
    assert f"{check_module.FILE} cannot be read: No such file or directory" in errors.getvalue()
