"""Studies as jobs: what goes along, what is refused before, how a job is followed. Real ones: hosts/test_jobs.py."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from subsettune import config
from subsettune.cluster import job_server, package
from subsettune.cluster.job_server import JobEnd, JobServer
from subsettune.cluster.package import check_package, weigh
from subsettune.cluster.submit import JobRequest, check_storage, job_server_address, run_name
from subsettune.errors import ConfigError, MissingPackageError, StudyError
from subsettune.study.spec.definition import Study

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


def test_a_client_that_is_not_installed_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.dashboard.modules.job.sdk.aiohttp", None)
    with pytest.raises(MissingPackageError, match=r'needs ray\[default\], .*: pip install "subsettune\[jobs\]"'):
        job_server.JobServer(URL)


# --- following --------------------------------------------------------------------------------------------------------


class Client:
    """A client of a job server that goes through looks at a job: each is its log so far, and its state.

    Args:
        looks: log, status, exit code and message; an exception is a link that is down.
        has_stream: whether the log comes as a stream, too; it breaks off behind its first half.
    """

    def __init__(self, *looks: tuple[str, str, int | None, str] | Exception, has_stream: bool = False) -> None:
        self.looks, self.has_stream = list(looks), has_stream

    def get_job_info(self, _: str) -> Any:
        look = self.looks[0]
        if isinstance(look, Exception):
            self.looks.pop(0)
            raise look
        self.log = look[0]
        if len(self.looks) > 1:
            self.looks.pop(0)
        return SimpleNamespace(status=SimpleNamespace(value=look[1]), driver_exit_code=look[2], message=look[3])

    def get_job_logs(self, _: str) -> str:
        return self.log

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        if self.has_stream and not isinstance(self.looks[0], Exception):
            yield self.looks[0][0][: len(self.looks[0][0]) // 2]
        raise RuntimeError("the stream broke off")


def follow(client: Client, monkeypatch: pytest.MonkeyPatch) -> tuple[JobEnd, str, list[str]]:
    server = JobServer.__new__(JobServer)
    server.address, server._client = URL, client  # type: ignore[assignment]
    monkeypatch.setattr(job_server, "sleep", lambda _: None)
    text: list[str] = []
    notes: list[str] = []
    end = server.follow("a-1", text.append, notes.append)
    return end, "".join(text), notes


@pytest.mark.parametrize("has_stream", [False, True])
def test_each_line_of_a_log_is_shown_once_whatever_breaks_off(
    has_stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [("", "PENDING", None, ""), ("one\n", "RUNNING", None, ""), ("one\ntwo\n", "RUNNING", None, "")]
    client = Client(*looks, ("one\ntwo\nthree\n", "FAILED", 3, "..."), has_stream=has_stream)
    end, text, notes = follow(client, monkeypatch)
    assert (text, notes) == ("one\ntwo\nthree\n", [])
    assert (end.code, end.words) == (3, "Job a-1 ended with exit code 3.")


def test_a_link_that_is_down_for_a_while_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    down = ConnectionRefusedError(111, "Connection refused")
    end, text, notes = follow(
        Client(("a\n", "RUNNING", None, ""), down, down, ("a\n", "STOPPED", None, "")), monkeypatch
    )
    assert (text, end.code) == ("a\n", 130)
    assert notes == [
        f"{URL} does not answer; it is tried again for 120 s. connection refused.",
        f"{URL} answers again.",
    ]
    monkeypatch.setattr(job_server, "LOST_S", 0.0)
    with pytest.raises(
        StudyError, match=r"answers no more: connection refused\. Job a-1 may go on\. To follow it again"
    ):
        follow(Client(down, down, down), monkeypatch)


def test_how_a_job_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow(Client(("", "SUCCEEDED", 0, "")), monkeypatch)[0].code == 0
    assert follow(Client(("", "FAILED", 2, "")), monkeypatch)[0].code == 2
    lacking = "failed with exit code 1, last available logs: python: No module named 'subsettune'"
    with pytest.raises(StudyError, match=r'the nodes of the cluster have no subsettune\. .*"subsettune\[tune\]"'):
        follow(Client(("", "FAILED", 1, lacking)), monkeypatch)
    with pytest.raises(StudyError, match=r"job a-1 failed beside its command: The node died\. Start the same command"):
        follow(Client(("", "FAILED", None, "The node\n died.")), monkeypatch)
