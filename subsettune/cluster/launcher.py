"""What a file for Ray's cluster launcher must say, beyond what Ray asks: rules, each with its remedy."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from subsettune.config import must
from subsettune.errors import Mistake
from subsettune.loggers import quieted

LOGGER = "ray.autoscaler._private.util"
IMAGE = re.compile(r"^rayproject/ray(?:-ml)?:(\d+\.\d+\.\d+)(?:-py(\d)(\d+))?")
OLD_IMAGE = "latest_dlami"  # Ray's name for a machine image of 2023, with a driver of CUDA 12
CUDA_DRIVER = 580  # the oldest of CUDA 13, which torch's wheels bring
AMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
GROW = "--autoscaling-config=~/ray_bootstrap_config.yaml"
MISSHAPEN = (AttributeError, KeyError, TypeError, ValueError)  # what rules meet where the schema has been told already
SHARED_SIGNS = ("mount ", "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS")


def mistakes(raw: Mapping[str, Any], folder: Path) -> Iterator[Mistake]:
    """Everything that is wrong with a launcher file.

    Args:
        raw: its content.
        folder: where it lies.
    """
    of_schema = list(_of_schema(raw))
    yield from of_schema or _of_ray(raw)
    for rule in (_of_image, _of_provider, _of_maxima, _of_commands, _of_storage):
        with contextlib.suppress(*(MISSHAPEN if of_schema else ())):
            yield from rule(raw)
    with contextlib.suppress(*(MISSHAPEN if of_schema else ())):
        yield from _of_mounts(raw, folder)


def _of_schema(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    import jsonschema

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    for error in jsonschema.Draft7Validator(schema).iter_errors(raw):
        path = tuple(str(part) for part in error.absolute_path)
        yield Mistake(path, f"{error.message.rstrip('.')}. Ray's schema of launcher files has it so.")


def _of_ray(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    """What Ray would stop at when the cluster is started; it prints some of that."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), quieted(LOGGER):
            validate_config(prepare_config(copy.deepcopy(dict(raw))))
    except (Exception, SystemExit) as error:  # Ray raises what it likes, and click's own
        words = " ".join(f"{error} {said.getvalue()}".split()).rstrip(".")
        yield Mistake((), f"Ray refuses it: {words}. Mend it, and check again.")


def _of_image(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    docker = raw.get("docker") or {}
    for key in ("image", "head_image", "worker_image"):
        yield from image_mistakes(docker.get(key), ("docker", key))


def image_mistakes(image: object, path: tuple[str, ...]) -> Iterator[Mistake]:
    """What does not agree between an image of Ray's own and what is installed here."""
    found = IMAGE.match(image) if isinstance(image, str) else None
    if found is None:
        return
    name, here = path[-1], ".".join(platform.python_version_tuple()[:2])
    if found[1] != ray.__version__:
        advice = "Drivers and nodes must have one version: change the tag, or install that version here."
        yield Mistake(path, must(name, f"of Ray {ray.__version__}, the one installed here", image, advice))
    if found[2] is not None and f"{found[2]}.{found[3]}" != here:
        advice = f"Take the tag with -py{here.replace('.', '')}, or check it with the Python of the image."
        yield Mistake(path, must(name, f"of Python {here}, the one here", image, advice))


def _of_provider(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    provider = raw["provider"]
    if provider["type"] in ("aws", "gcp") and not provider.get("region"):
        advice = "Name that of your bucket: traffic between regions costs, and a client without one takes seconds."
        yield Mistake(("provider", "region"), must("region", "given", provider.get("region"), advice))
    for name, kind in _types(raw).items():
        image = kind["node_config"].get("ImageId")
        if provider["type"] == "aws" and (image or "").lower() in ("", OLD_IMAGE):
            rule = f"a machine image with NVIDIA's driver {CUDA_DRIVER} or newer"
            advice = f"torch's CUDA asks for it. Find one: aws ssm get-parameter --name {AMI} --region REGION"
            yield Mistake(("available_node_types", name, "node_config"), must("ImageId", rule, image, advice))


def _types(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    return raw.get("available_node_types") or {}


def _workers(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kind for name, kind in _types(raw).items() if name != raw.get("head_node_type")}


def _most_workers(raw: Mapping[str, Any]) -> int:
    return int(raw.get("max_workers", len(raw["provider"].get("worker_ips") or ())))


def _of_maxima(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    most, least = _most_workers(raw), 0
    for name, kind in _workers(raw).items():
        path, own = ("available_node_types", name), kind.get("max_workers", most)
        least += kind.get("min_workers", 0)
        if own > most:
            advice = "Workers of all types together are bounded by that. Raise it, or lower this one."
            yield Mistake((*path, "max_workers"), must("max_workers", f"at most {most}, that of the file", own, advice))
        if kind.get("min_workers", 0) > own:
            message = must("min_workers", f"at most {own}, the type's max_workers", kind["min_workers"], "Lower it.")
            yield Mistake((*path, "min_workers"), message)
    if least > most:
        advice = f"The types' min_workers come to {least}. Raise it, or lower those."
        yield Mistake(("max_workers",), must("max_workers", f"at least {least}", most, advice))
    if _types(raw) and not any(min(most, kind.get("max_workers", most)) for kind in _workers(raw).values()):
        head = _types(raw).get(str(raw.get("head_node_type")), {})
        if not head.get("resources", {}).get("CPU", 1):
            advice = "The head node has no CPUs, and no worker may come: no run fits anywhere. Allow some workers."
            yield Mistake(("max_workers",), must("max_workers", "1 or more", most, advice))


def _of_commands(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    """Start commands, which replace Ray's own where they are given, and what brings this package."""
    heads, workers = _lines(raw, "head_start_ray_commands"), _lines(raw, "worker_start_ray_commands")
    head = next((line for line in heads if "ray start" in line), None)
    if heads and (head is None or "--head" not in head):
        yield _incomplete("head_start_ray_commands", "have `ray start --head`", head)
    if head is not None and "--autoscaling-config" not in head and _most_workers(raw):
        yield _incomplete("head_start_ray_commands", f"have {GROW}, or no worker ever comes", head)
    worker = next((line for line in workers if "ray start" in line), None)
    if workers and _most_workers(raw) and (worker is None or "--address=$RAY_HEAD_IP:" not in worker):
        yield _incomplete("worker_start_ray_commands", "have `ray start --address=$RAY_HEAD_IP:6379`", worker)
    ports = _found(head, r"--port[= ](\d+)") or "6379", _found(worker, r"RAY_HEAD_IP:(\d+)") or "6379"
    if head is not None and worker is not None and ports[0] != ports[1]:
        yield _incomplete("worker_start_ray_commands", f"name port {ports[0]}, the head's", worker)
    modes = _found(head, r"RAY_AUTH_MODE=(\w+)"), _found(worker, r"RAY_AUTH_MODE=(\w+)")
    if head is not None and worker is not None and modes[0] != modes[1]:
        yield _incomplete("worker_start_ray_commands", f"set RAY_AUTH_MODE as the head does ({modes[0]})", worker)
    if modes[0] == "token" and not any("auth_token" in place for place in raw.get("file_mounts") or {}):
        advice = "Write ~/.ray/auth_token: ~/.ray/auth_token (`ray get-auth-token --generate` makes one)."
        yield Mistake(("file_mounts",), must("file_mounts", "with the token that RAY_AUTH_MODE asks for", None, advice))
    image = (raw.get("docker") or {}).get("image", "rayproject/")
    setup = [line for key in ("setup_commands", "head_setup_commands") for line in _lines(raw, key)]
    if image.startswith("rayproject/") and not any("subsettune" in line for line in setup):
        advice = 'Write: pip install "subsettune[tune]", with the version that is installed here.'
        yield Mistake(("setup_commands",), must("setup_commands", "such that subsettune is installed", setup, advice))


def _lines(raw: Mapping[str, Any], key: str) -> Sequence[str]:
    return [str(line) for line in raw.get(key) or ()]


def _found(line: str | None, pattern: str) -> str | None:
    match = re.search(pattern, line or "")
    return match[1] if match else None


def _incomplete(key: str, rule: str, line: str | None) -> Mistake:
    advice = "These commands replace Ray's own: write them whole, or leave the key out."
    return Mistake((key,), f"{key} must {rule}, got {line!r}. {advice}")


def _of_mounts(raw: Mapping[str, Any], folder: Path) -> Iterator[Mistake]:
    for place, source in (raw.get("file_mounts") or {}).items():
        path = Path(str(source)).expanduser()
        if not (folder / path).exists() and not path.exists():
            advice = "Ray copies it to every node when the cluster starts. Make it, or take the line out."
            rule = "a file or folder that is there"
            yield Mistake(("file_mounts", str(place)), must(f"file_mounts[{place!r}]", rule, source, advice))


def _of_storage(raw: Mapping[str, Any]) -> Iterator[Mistake]:
    """Workers write checkpoints: each needs the rights to a bucket, or a folder that all of them mount."""
    keys = ("initialization_commands", "setup_commands", "worker_setup_commands", "worker_start_ray_commands")
    commands = [line for key in keys for line in _lines(raw, key)]
    options = [str(line) for line in (raw.get("docker") or {}).get("run_options") or ()]
    if not _most_workers(raw) or any(sign in line for line in commands for sign in SHARED_SIGNS):
        return
    if any(re.match(r"(-v|--volume|--mount)\b", line) for line in options):
        return
    if raw["provider"]["type"] != "aws":
        advice = "Mount a shared folder (docker run_options, setup_commands), or give a bucket's keys to the workers."
        yield Mistake(("setup_commands",), must("setup_commands", "such that nodes share a storage", commands, advice))
        return
    for name, kind in _workers(raw).items():
        if "IamInstanceProfile" not in kind["node_config"]:
            advice = "Ray makes one for the head node alone; workers write checkpoints to the bucket, too."
            message = must("IamInstanceProfile", "given for workers", None, advice)
            yield Mistake(("available_node_types", name, "node_config"), message)
