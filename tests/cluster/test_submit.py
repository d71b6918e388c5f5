"""Studies as jobs: what goes along, what is refused before, and one cluster with a job server that asks for a token."""

from __future__ import annotations

import http.server
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from ray_heads import free_port, head

from subsettune import cli, config
from subsettune.cli import cluster_commands
from subsettune.cluster import package
from subsettune.cluster.package import check_package, weigh
from subsettune.cluster.submit import JobRequest, check_storage, job_server_address, run_name
from subsettune.errors import ConfigError, MissingPackageError, StudyError
from subsettune.study.spec.definition import Study
from subsettune.study.status import read_status

TOKEN = "0123456789abcdef" * 3
NET = "from torch import nn\nfrom parts.layers import hidden\n\n\nclass Net(nn.Module):\n    pass\n"
URL = "http://127.0.0.1:8265"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a module of the user's, what that imports, and data."""
    (tmp_path / "work" / "parts").mkdir(parents=True)
    work = tmp_path / "work"
    for name, text in {
        "study.yaml": "",
        "net.py": NET,
        "parts/__init__.py": "",
        "parts/layers.py": "hidden = 1\n",
        "points.csv": "a,label\n1,0\n",
    }.items():
        (work / name).write_text(text)
    monkeypatch.chdir(work)
    return work


def study(source: str = "points.csv", model: str = "net:Net", **options: Any) -> Study:
    task = {
        "data": {"source": source},
        "model": {"name": model, **options},
        "recipe": {"lr": 0.1, "batch_size": 16, "epochs": 3},
        "metric": "accuracy",
        "tolerance": 0.1,
    }
    return config.build(Study, {"task": task, "space": {"arm": "full", "budget": {"log": [0.1, 0.9]}}})


def refused(folder: Path, one: Study, file: str = "study.yaml", data_root: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_package(weigh(folder), file, one, data_root)
    return [str(mistake) for mistake in caught.value.mistakes]


# --- what goes along --------------------------------------------------------------------------------------------------


def test_a_folder_with_all_that_a_study_names_goes_along(folder: Path) -> None:
    made = weigh(folder)
    names = {str(path.relative_to(folder)) for path in made.sizes}
    assert names == {"study.yaml", "net.py", "parts/__init__.py", "parts/layers.py", "points.csv"}
    assert check_package(made, "study.yaml", study(), None) == []


def test_the_weight_is_that_of_the_file_that_ray_makes(folder: Path, tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    (folder / "big").write_bytes(os.urandom(100_000))
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "parts" / ".rayignore").write_text("old\n")
    (folder / "parts" / "old").mkdir()
    (folder / "parts" / "old" / "x.py").write_text("x = 1\n")
    (folder / "a.log").write_text("left out")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "net.pyc").write_text("left out")
    excludes = ["__pycache__"]
    create_package(str(folder), tmp_path / "made.zip", include_gitignore=True, excludes=excludes)
    made = weigh(folder)
    assert made.num_bytes == (tmp_path / "made.zip").stat().st_size
    assert "a.log" not in {path.name for path in made.sizes}


def test_a_folder_that_no_server_takes_is_told_with_its_largest_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "LIMIT_BYTES", 50_000)
    (folder / "big.bin").write_bytes(b"0" * 60_000)
    with pytest.raises(ConfigError) as caught:
        weigh(folder)
    text = str(caught.value)
    assert text.startswith(f"the folder {folder} must be smaller than 50.0 kB, what a job server takes, got 60.")
    assert "in 6 files. The largest: big.bin (60.0 kB), " in text
    assert ".rayignore" in text
    monkeypatch.setattr(package, "MOST_FILES", 3)
    with pytest.raises(ConfigError, match=r"got more than 3 files\. The largest: "):
        weigh(folder)
    (folder / ".rayignore").write_text("big.bin\n")
    monkeypatch.setattr(package, "MOST_FILES", 100)
    assert weigh(folder).num_bytes < 50_000


def test_what_would_stay_behind_is_told_all_at_once(folder: Path) -> None:
    (folder / ".gitignore").write_text("*.csv\n")
    (folder / ".rayignore").write_text("layers.py\n")
    found = refused(folder, study())
    assert [line.partition(":")[0] for line in found] == ["task.data.source", "task.model.name"]
    assert "data 'points.csv' would stay behind: points.csv is in .gitignore" in found[0]
    assert f"module {Path('parts/layers.py')} would stay behind" in found[1]


def test_what_lies_elsewhere_is_refused_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,label\n1,0\n")
    (line,) = refused(folder, study(str(tmp_path / "other.csv")))
    assert f"must be in {folder}, which goes along, got '{tmp_path / 'other.csv'}'" in line
    assert "give --data-root" in line
    (line,) = refused(folder, study(), file="../study.yaml")
    assert line.startswith(f"the study file must be in {folder}, which goes along, got '{tmp_path / 'study.yaml'}'. It")
    (line,) = refused(folder, study(weights=str(tmp_path / "other.csv")))
    assert line.startswith("task.model.weights: weights ")
    assert check_package(weigh(folder), "study.yaml", study("other.csv"), "/of/the/nodes") == []
    assert check_package(weigh(folder), "study.yaml", study(str(tmp_path / "other.csv")), str(tmp_path)) == []


def test_data_and_modules_that_are_nowhere_are_slips(folder: Path) -> None:
    data, module = refused(folder, study("point.csv", "nett:Net"))
    assert "It is not there." in data
    assert f"module nett is neither in {folder}, which goes along, nor installed. Did you mean 'net'?" in module


def test_a_module_of_elsewhere_is_told_because_the_nodes_must_have_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    (note,) = check_package(weigh(folder), "study.yaml", study(model="mine:Net"), None)
    assert note == f"module mine lies in {tmp_path}, outside of {folder}: the nodes must have it."
    assert check_package(weigh(folder), "study.yaml", study(model="torch.nn:Linear"), None) == []


def test_a_folder_of_data_goes_along_whole(folder: Path) -> None:
    (folder / "photos" / "cat").mkdir(parents=True)
    for name in ("1.jpg", "2.jpg"):
        (folder / "photos" / "cat" / name).write_bytes(b"0")
    assert check_package(weigh(folder), "study.yaml", study("photos/"), None) == []
    (folder / "photos" / ".gitignore").write_text("*.jpg\n")
    (line,) = refused(folder, study("photos/"))
    assert " and 1 more is in .gitignore" in line


# --- what is asked ----------------------------------------------------------------------------------------------------


def test_the_line_of_rays_own_has_all_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    words = ("python", "-m", "subsettune.cli", "tune", "my study.yaml")
    request = JobRequest(job="a-1", run="s3://b/runs a", words=words, variables={"X": "y z"})
    given = shlex.split(request.line(URL, has_token=False))
    assert given[:5] == ["ray", "job", "submit", "--address", URL]
    assert given[given.index("--") + 1 :] == list(words)
    assert request.entrypoint == shlex.join(words)
    environment = json.loads(given[given.index("--runtime-env-json") + 1])
    assert environment == request.runtime_env == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60", "X": "y z"}}
    assert json.loads(given[given.index("--metadata-json") + 1]) == {"subsettune-run": "s3://b/runs a"}
    assert given[given.index("--submission-id") + 1] == "a-1"
    assert request.line(URL, has_token=True).startswith("RAY_AUTH_MODE=token ray job submit ")
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")  # Ray's command would go there
    assert request.line(URL, has_token=False).startswith("env -u RAY_ADDRESS ray job submit ")


def test_a_study_has_one_name_however_its_storage_is_written() -> None:
    assert run_name("s3://b/runs/?region=x", "a") == run_name("s3://b/runs", "a") == "s3://b/runs a"


@pytest.mark.parametrize("given", ["127.0.0.1:6379", "auto", "ray://h:10001", "http://", "http://h:x", None])
def test_an_address_that_is_no_url_is_refused(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"^--address must be a URL such as http://HOST:8265, got "):
        job_server_address(given)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"{URL}/")
    assert job_server_address(None) == URL


def test_nothing_secret_becomes_part_of_a_job() -> None:
    with pytest.raises(ConfigError, match="--address must be without a name and a password") as caught:
        job_server_address("http://me:SECRET@host:8265")
    assert "SECRET" not in str(caught.value)
    for storage in ("s3://KEY:SECRET@b/runs", "s3://b/runs?secret_key=SECRET", "s3://b/runs?session_token=SECRET"):
        with pytest.raises(ConfigError, match="--storage must be without keys") as caught:
            check_storage(storage)
        assert "SECRET" not in str(caught.value)
    for storage in ("s3://b/runs?region=us-west-2", "gs://anonymous@b/runs", "/shared/runs"):
        check_storage(storage)
    with pytest.raises(ConfigError, match=r"--storage must be a URI or an absolute path, got 'runs'\. In a job"):
        check_storage("runs")


# --- who answers ------------------------------------------------------------------------------------------------------


class _Answer(http.server.BaseHTTPRequestHandler):
    """Gives one answer to everything."""

    code, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (200, b"<html>", "answers at {}: what answers there is none. Give the address of a cluster's dashboard"),
        (200, b"[]", "what answers there is none"),
        (200, b'{"ray_version": "x"}', "what answers there is none"),
        (404, b"", "what answers there is none"),
        (502, b"", "it answers with HTTP 502"),
        (401, b"", "what answers at {} asks for a password, and is no job server."),
        (401, b"Unauthorized: Missing authentication token", "at {} refuses the token of this machine. Copy ~/.ray/"),
        (403, b"Forbidden: Invalid authentication token", "at {} refuses the token of this machine. Copy ~/.ray/auth"),
    ],
)
def test_what_is_no_job_server_is_told(code: int, body: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="the client of Ray's job server needs ray[default]")
    from subsettune.cluster.job_server import JobServer

    class Answer(_Answer):
        def do_GET(self) -> None:  # a server that is asked for a token and gets a wrong one
            is_wrong = self.code == 401 and self.body and self.headers.get("Authorization")
            type(self).code, type(self).body = (403, b"Invalid authentication token") if is_wrong else (code, body)
            super().do_GET()

    Answer.code, Answer.body = code, body
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(StudyError) as caught:
            JobServer(address)
    finally:
        server.shutdown()
        server.server_close()
    assert words.format(address) in str(caught.value)


def test_who_does_not_answer_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="the client of Ray's job server needs ray[default]")
    from subsettune.cluster import job_server

    monkeypatch.setattr(job_server, "ANSWER_S", 1.0)
    with pytest.raises(StudyError, match=r"answers at http://127\.0\.0\.1:\d+: connection refused\. Give the address"):
        job_server.JobServer(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StudyError, match="there is no host of that name, or no network"):
        job_server.JobServer("http://nobody.invalid:8265")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(StudyError, match="no answer in 1 s"),
    ):
        job_server.JobServer(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_client_that_is_not_installed_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from subsettune.cluster import job_server

    monkeypatch.setattr(job_server.sdk, "aiohttp", None)
    with pytest.raises(MissingPackageError, match=r'is not installed\. .*: pip install "ray\[default\]"'):
        job_server.JobServer(URL)


# --- a cluster --------------------------------------------------------------------------------------------------------

TRAIN = """
import time
from pathlib import Path


def train(run):
    for _ in run.batches():
        while not Path(run.options["place"], "go").exists():
            time.sleep(0.05)
    score = run.total_steps() / 100  # the less compute, the worse
    run.finish(validation=score, test=score)
"""
STUDY = """
task:
  train: "mine:train"
  train_options: {place: PLACE}
  examples: 64
  recipe: {lr: 0.1, batch_size: 16, epochs: 4}
  metric: accuracy
  tolerance: 0.001
space: {arm: full, budget: {log: [0.3, 0.9]}}
study: {trials: 2, parallel: 1, seeds: 2, max_seeds: 2, candidates: 1, sampler: random}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCluster:
    """A head with a job server that asks for a token.

    Args:
        address: of the job server.
        home: folder of its user, where the token lies.
    """

    address: str
    home: Path


@pytest.fixture(scope="module")
def job_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobCluster]:
    """Ray: the job server is a process of a cluster's head."""
    pytest.importorskip("aiohttp", reason="Ray's job server needs ray[default]")
    from subsettune.cluster.job_server import JobServer

    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    port = free_port()
    flags = ["--include-dashboard=true", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where a job finds `python`
    cache = str(tmp_path_factory.mktemp("cache"))
    variables = {"RAY_AUTH_MODE": "token", "PATH": path, "PYTHONPATH": str(ROOT), "SUBSETTUNE_CACHE": cache}
    with head(home, *flags, num_cpus=1, **variables), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while True:
            try:
                JobServer(address)
                break
            except StudyError:
                assert time.monotonic() < until, "no job server in 60 s"
                time.sleep(0.2)
        yield JobCluster(address=address, home=home)


def _wait_for_stage(storage: Path, stage: str) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if read_status(str(storage), "one").stage == stage:
                return
        except StudyError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"no {stage} in 120 s")


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_is_left_stopped_and_gone_on_with(
    job_cluster: JobCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: one study by two jobs, the first of which is stopped while its reference trains."""
    from subsettune.cluster.job_server import JobServer

    work, storage = tmp_path / "work", tmp_path / "runs"
    work.mkdir()
    (work / "mine.py").write_text(TRAIN)
    (work / "study.yaml").write_text(STUDY.replace("PLACE", str(tmp_path)))
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(job_cluster.home))
    command = ["submit", "study.yaml", "--address", job_cluster.address]
    command += ["--storage", str(storage), "--run-id", "one"]

    assert cli.main(command) == 0
    told = capsys.readouterr()
    job = told.out.strip()
    assert job.startswith("one-2")
    line = next(each for each in told.err.splitlines() if each.startswith("The same by Ray's own command: "))
    assert f"RAY_AUTH_MODE=token ray job submit --address {job_cluster.address} --submission-id {job} " in line
    assert TOKEN not in told.err
    assert f"ray job stop {job} --address {job_cluster.address}; to follow it: subsettune " in told.err

    assert cli.main(command) == 0  # told, not doubled
    told = capsys.readouterr()
    assert told.out.strip() == job
    assert f"Job {job} drives study one already: nothing was submitted." in told.err

    _wait_for_stage(storage, "reference")
    status = read_status(str(storage), "one")
    assert (status.state, status.references) == ("running", 0)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # Ctrl-C, once the log is shown
        patch.setattr(cluster_commands, "_write", interrupt)
        assert cli.main([*command, "--follow"]) == 130
    assert "The job goes on. To stop it: RAY_AUTH_MODE=token ray job stop " in capsys.readouterr().err

    server = JobServer(job_cluster.address)
    assert server.has_token
    assert server.running(f"{storage} one") == job
    started = time.monotonic()
    assert server._client.stop_job(job)
    end = server.follow(job, lambda _: None, lambda _: None)
    assert (end.code, end.words) == (130, f"Job {job} was stopped; what is finished is kept.")
    assert time.monotonic() - started < 45
    assert read_status(str(storage), "one").state == "interrupted"
    assert server.running(f"{storage} one") is None

    (tmp_path / "go").touch()
    assert cli.main([*command, "--follow"]) == 3  # as `tune`: no policy passed
    told = capsys.readouterr()
    again = shlex.join(["subsettune", *command, "--follow"])
    assert "Stop it with RAY_AUTH_MODE=token ray job stop one-2" in told.out
    assert f"; to go on: {again}" in told.out
    assert "No policy passed" in told.out
    assert "ended with exit code 3." in told.err
    status = read_status(str(storage), "one")
    assert (status.state, status.references, status.num_starts) == ("finished", 2, 2)
    assert TOKEN not in told.out + told.err
