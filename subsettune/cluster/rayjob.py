"""What a RayJob for KubeRay must say for a study: rules, each with its remedy. Ray ships no schema of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from subsettune.cluster.launcher import image_mistakes
from subsettune.config import must
from subsettune.errors import Mistake
from subsettune.study.spec.yaml_core import parse_yaml

API = "ray.io/v1"
MODES = ("K8sJobMode", "HTTPMode", "SidecarMode")
GROUP_KEYS = ("groupName", "minReplicas", "maxReplicas", "template")
SPEC, CLUSTER = ("spec",), ("spec", "rayClusterSpec")
GPU = "nvidia.com/gpu"
Place = tuple[str, ...]


def mistakes(raw: Mapping[str, Any], folder: Path) -> Iterator[Mistake]:  # noqa: ARG001 (as of launcher files)
    """Everything that is wrong with a RayJob.

    Args:
        raw: its content.
        folder: where it lies.
    """
    if raw.get("apiVersion") != API or raw.get("kind") != "RayJob":
        got = f"{raw.get('kind')} of {raw.get('apiVersion')}"
        yield Mistake(("apiVersion",), must("the file", f"a RayJob of {API}", got, "Write kind: RayJob."))
    spec = raw.get("spec")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("rayClusterSpec"), Mapping):
        advice = "The job brings its own cluster, and takes it away again."
        yield Mistake(SPEC, must("spec", "a mapping with rayClusterSpec", None, advice))
        return
    if not (raw.get("metadata") or {}).get("name"):
        yield Mistake(("metadata",), must("metadata", "with a name", raw.get("metadata"), "Kubernetes asks for it."))
    yield from _of_job(spec)
    yield from _of_cluster(spec["rayClusterSpec"])


def _of_job(spec: Mapping[str, Any]) -> Iterator[Mistake]:
    if spec.get("shutdownAfterJobFinishes") is not True:
        advice = "Else the cluster stays, and costs, when the study is over."
        got = spec.get("shutdownAfterJobFinishes", False)
        yield Mistake((*SPEC, "shutdownAfterJobFinishes"), must("shutdownAfterJobFinishes", "true", got, advice))
    if spec.get("submissionMode", MODES[0]) not in MODES:
        message = must("submissionMode", f"one of {', '.join(MODES)}", spec["submissionMode"], "Leave it out.")
        yield Mistake((*SPEC, "submissionMode"), message)
    environment = spec.get("runtimeEnvYAML")
    if environment is not None and not isinstance(environment, str):
        advice = "Put `|` behind the key: KubeRay takes a text."
        yield Mistake((*SPEC, "runtimeEnvYAML"), must("runtimeEnvYAML", "a text of YAML", environment, advice))
    elif environment is not None and not isinstance(_yaml(environment), Mapping):
        advice = "Write keys such as env_vars."
        yield Mistake((*SPEC, "runtimeEnvYAML"), must("runtimeEnvYAML", "YAML of a mapping", environment, advice))
    yield from _of_entrypoint(spec)


def _yaml(text: str) -> Any:
    try:
        return parse_yaml(text)[0]
    except ValueError:
        return None


def _of_entrypoint(spec: Mapping[str, Any]) -> Iterator[Mistake]:
    path, given = (*SPEC, "entrypoint"), str(spec.get("entrypoint") or "")
    try:
        words = shlex.split(given)
    except ValueError:
        words = []
    if "tune" not in words:
        advice = "Write: subsettune tune STUDY.yaml --address auto --storage URI --run-id NAME"
        yield Mistake(path, must("entrypoint", "a `subsettune tune` command", given, advice))
        return
    storage, run_id = _flag(words, "--storage"), _flag(words, "--run-id")
    if run_id is None:
        advice = "A job that is tried again goes on with the study of that name; without one it begins another."
        yield Mistake(path, must("entrypoint", "with --run-id", given, advice))
    if spec.get("backoffLimit") and "--accept-no-policy" not in words:
        advice = "Else exit code 3, no policy passed, is a failure, and a cluster is made anew for it."
        yield Mistake(path, must("entrypoint", "with --accept-no-policy where backoffLimit is above 0", given, advice))
    mounts = [mount for _, pod in _pods(spec["rayClusterSpec"]) for mount in _mounted(pod)]
    if storage is None or ("://" not in storage and not any(storage.startswith(mount) for mount in mounts)):
        advice = "A folder of one pod dies with it: give a bucket, or a volume that all pods mount."
        yield Mistake(path, must("entrypoint", "with a --storage that all pods share", storage, advice))


def _flag(words: Sequence[str], name: str) -> str | None:
    for at, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and at + 1 < len(words):
            return words[at + 1]
    return None


def _pods(cluster: Mapping[str, Any]) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """The specifications of all kinds of pods, with their places."""
    groups: list[tuple[Place, Any]] = [(("headGroupSpec",), cluster.get("headGroupSpec") or {})]
    for number, group in enumerate(cluster.get("workerGroupSpecs") or ()):
        groups.append((("workerGroupSpecs", str(number)), group))
    for place, group in groups:
        yield (*CLUSTER, *place), (group.get("template") or {}).get("spec") or {}


def _mounted(pod: Mapping[str, Any]) -> list[str]:
    containers = pod.get("containers") or ()
    return [str(mount.get("mountPath")) for one in containers for mount in one.get("volumeMounts") or ()]


def _of_cluster(cluster: Mapping[str, Any]) -> Iterator[Mistake]:
    if cluster.get("rayVersion") != ray.__version__:
        advice = "KubeRay sets the cluster up for it; images and this machine must have the same."
        message = must("rayVersion", f"{ray.__version__!r}, the one installed here", cluster.get("rayVersion"), advice)
        yield Mistake((*CLUSTER, "rayVersion"), message)
    groups = cluster.get("workerGroupSpecs") or []
    if not groups:
        advice = "Runs need nodes: write groupName, minReplicas, maxReplicas and template of one."
        yield Mistake((*CLUSTER, "workerGroupSpecs"), must("workerGroupSpecs", "one group or more", groups, advice))
    for number, group in enumerate(groups):
        yield from _of_group(group, (*CLUSTER, "workerGroupSpecs", str(number)), cluster)
        yield from _of_start(group, (*CLUSTER, "workerGroupSpecs", str(number)))
    for place, pod in _pods(cluster):
        yield from _of_pod(pod, place)
    yield from _of_start(cluster.get("headGroupSpec") or {}, (*CLUSTER, "headGroupSpec"))


def _of_start(group: Mapping[str, Any], path: Place) -> Iterator[Mistake]:
    for key, value in (group.get("rayStartParams") or {}).items():
        if not isinstance(value, str):
            advice = "KubeRay takes texts: put it in quotes."
            yield Mistake((*path, "rayStartParams", str(key)), must(str(key), "a text", value, advice))


def _of_group(group: Mapping[str, Any], path: Place, cluster: Mapping[str, Any]) -> Iterator[Mistake]:
    lacking = [key for key in GROUP_KEYS if key not in group]
    if lacking:
        rule = f"with {', '.join(GROUP_KEYS)}"
        yield Mistake(path, must("a worker group", rule, f"one without {' and '.join(lacking)}", "Add it."))
        return
    least, most = group["minReplicas"], group["maxReplicas"]
    if least > most or not least <= group.get("replicas", least) <= most:
        advice = "KubeRay starts `replicas`, and stays between the two."
        got = (least, group.get("replicas", least), most)
        yield Mistake(path, must("replicas", "between minReplicas and maxReplicas", got, advice))
    if least < most and not cluster.get("enableInTreeAutoscaling"):
        advice = "Without it no worker beyond `replicas` ever comes."
        message = must("enableInTreeAutoscaling", "true where minReplicas is below maxReplicas", None, advice)
        yield Mistake((*CLUSTER, "enableInTreeAutoscaling"), message)


def _of_pod(pod: Mapping[str, Any], path: Place) -> Iterator[Mistake]:
    containers = pod.get("containers") or []
    if not containers:
        yield Mistake(path, must("template.spec.containers", "one or more", containers, "The first one runs Ray."))
    for number, one in enumerate(containers[:1]):
        place = (*path, "template", "spec", "containers", str(number))
        yield from image_mistakes(one.get("image"), (*place, "image"))
        gpus = ((one.get("resources") or {}).get("limits") or {}).get(GPU, 0)
        if not re.fullmatch(r"\d+", str(gpus)):
            advice = "A pod has whole GPUs; gpus_per_trial of the study file may share one."
            yield Mistake((*place, "resources", "limits", GPU), must(GPU, "a whole number", gpus, advice))
