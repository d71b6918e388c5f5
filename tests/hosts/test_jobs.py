"""The job server of a Ray cluster: who answers, and one that asks for a token, with a study. By `make test-hosts`."""

from __future__ import annotations

import http.server
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import s3_server

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs ray[default], and runs by `make test-hosts`", allow_module_level=True)

from places import ROOT
from ray_heads import free_port, head

from subsettune import cli
from subsettune.cli import cluster_commands
from subsettune.cluster import job_server
from subsettune.cluster.job_server import JobServer
from subsettune.cluster.submit import run_name
from subsettune.errors import StudyError
from subsettune.study.status import read_status

pytestmark = pytest.mark.filterwarnings("default")  # aiohttp's and Ray's own are not ours to mend
TOKEN = "0123456789abcdef" * 3


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


# --- a cluster --------------------------------------------------------------------------------------------------------

TRAIN = """
import time
from pathlib import Path


def train(run):
    Path(run.options["place"], "begun").touch()
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
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(TOKEN)
    port = free_port()
    flags = ["--include-dashboard=true", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
    flags += [f"--dashboard-agent-listen-port={free_port()}"]  # else a second cluster of this machine has it
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where a job finds `python`
    cache = str(tmp_path_factory.mktemp("cache"))
    variables = {"RAY_AUTH_MODE": "token", "PATH": path, "PYTHONPATH": str(ROOT), "SUBSETTUNE_CACHE": cache}
    variables |= s3_server.KEYS
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


def _wait_for(path: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until, f"no {path.name} in 120 s"
        time.sleep(0.2)


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, or the URI of one in a bucket, whose keys are the cluster's own."""
    if request.param == "folder":
        yield str(tmp_path / "runs")
        return
    with s3_server.bucket() as (uri, _):
        yield uri


def test_a_job_is_left_stopped_and_gone_on_with(
    job_cluster: JobCluster, storage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ray: one study by two jobs, the first of which is stopped while its reference trains."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.py").write_text(TRAIN)
    (work / "study.yaml").write_text(STUDY.replace("PLACE", str(tmp_path)))
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(job_cluster.home))
    command = ["submit", "study.yaml", "--address", job_cluster.address]
    command += ["--storage", storage, "--run-id", "one"]

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

    _wait_for(tmp_path / "begun")
    status = read_status(storage, "one")
    assert (status.state, status.references) == ("running", 0)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # Ctrl-C, once the log is shown
        patch.setattr(cluster_commands, "_write", interrupt)
        assert cli.main([*command, "--follow"]) == 130
    assert "The job goes on. To stop it: RAY_AUTH_MODE=token ray job stop " in capsys.readouterr().err

    server = JobServer(job_cluster.address)
    assert server.has_token
    assert server.running(run_name(storage, "one")) == job
    started = time.monotonic()
    assert server._client.stop_job(job)
    log: list[str] = []
    end = server.follow(job, log.append, lambda _: None)
    assert (end.code, end.words) == (130, f"Job {job} was stopped; what is finished is kept.")
    assert time.monotonic() - started < 45
    assert read_status(storage, "one").state == "interrupted", "".join(log)
    assert server.running(run_name(storage, "one")) is None

    (tmp_path / "go").touch()
    assert cli.main([*command, "--follow"]) == 3  # as `tune`: no policy passed
    told = capsys.readouterr()
    again = shlex.join(["subsettune", *command, "--follow"])
    assert "Stop it with RAY_AUTH_MODE=token ray job stop one-2" in told.out
    assert f"; to go on: {again}" in told.out
    assert "No policy passed" in told.out
    assert "ended with exit code 3." in told.err
    status = read_status(storage, "one")
    assert (status.state, status.references, status.num_starts) == ("finished", 2, 2)
    assert TOKEN not in told.out + told.err
