from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from subsettune.errors import StorageError
from subsettune.keys import masked, without_keys
from subsettune.storage import Folder, parsed


def test_write_and_read(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path) / "runs"
    folder.write("a/b.txt", b"one")
    folder.write("a/b.txt", b"three")
    assert folder.read("a/b.txt") == b"three"
    assert (tmp_path / "runs" / "a" / "b.txt").read_bytes() == b"three"
    assert folder.names("a") == ["b.txt"]  # no temporary file is left
    assert (folder.exists("a"), folder.exists("a/b.txt"), folder.exists("c"), folder.exists()) == (
        True,
        True,
        False,
        True,
    )
    assert (folder.size_bytes("a/b.txt"), folder.size_bytes("c")) == (5, 0)
    folder.write("c", b"1234")
    assert folder.total_bytes() == 9
    folder.remove("a")
    folder.remove("a")
    folder.remove("c")
    assert folder.names() == folder.names("nowhere") == []


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert Folder.at("runs").path == f"{tmp_path}/runs"
    assert Folder.at("~/runs").path == "/home/someone/runs"
    uri = Folder.at(f"file://{tmp_path}/runs/")
    assert (uri.path, uri.is_local, str(uri / "one")) == (f"{tmp_path}/runs", True, f"{tmp_path}/runs/one")
    with pytest.raises(StorageError, match=r"^storage 'nope://x' cannot be reached: .*Check the address.$"):
        Folder.at("nope://x")


def test_an_object_store() -> None:
    """Arrow's in-memory file system stands for one: nothing is local, a file is one upload."""
    folder = Folder(fs._MockFileSystem(), "bucket")
    folder.filesystem.create_dir("bucket")
    folder.write("a.bin", b"12")
    assert not folder.is_local
    assert str(folder) == "mock://bucket"
    assert folder.read("a.bin") == b"12"
    assert folder.names() == ["a.bin"]
    folder.remove("a.bin")
    assert not folder.exists("a.bin")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder.at(tmp_path)
    folder.write("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StorageError, match=f"^{tmp_path}/a cannot be written: .*No space left on device. Make room and start the same"
    ):
        folder.write("a", b"new")
    assert folder.read("a") == b"old"
    assert folder.names() == ["a"]


def test_what_cannot_be_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        StorageError, match=f"^{tmp_path}/file/a cannot be written: .* Give a --storage folder that can"
    ):
        Folder.at(tmp_path / "file").write("a", b"")
    with pytest.raises(StorageError, match=f"^{tmp_path}/absent cannot be read: "):
        Folder.at(tmp_path).read("absent")


def test_a_table_in_bytes_is_read_by_this_thread_alone(tmp_path: Path) -> None:
    table = pa.table({"a": range(1000), "b": [str(i) for i in range(1000)]})
    content = io.BytesIO()
    pq.write_table(table, content, row_group_size=100)
    assert parsed(content.getvalue()) == table
    (tmp_path / "t.parquet").write_bytes(content.getvalue())
    script = (
        "import os, pathlib, pyarrow.parquet\n"
        "from subsettune.storage import parsed\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "content = pathlib.Path('t.parquet').read_bytes()\n"
        "before = threads()\n"
        "parsed(content)\n"
        "print(threads() - before)\n"
        "pyarrow.parquet.read_table('t.parquet')\n"
        "print(threads() - before > 0)\n"  # Arrow's own way is seen to start some
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == ["0", "True"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table" * 40])
def test_bytes_that_are_no_table_are_refused(content: bytes) -> None:
    with pytest.raises(pa.ArrowException):
        parsed(content)


def test_the_oldest_files_go_until_the_rest_fits(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    for age, name in enumerate(("new", "middle", "old")):
        folder.write(name, b"12345")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / ".being-written.tmp").write_bytes(b"0" * 100)
    folder.trim(15)
    assert folder.names() == [".being-written.tmp", "middle", "new", "old"]
    folder.trim(12)
    assert folder.names() == [".being-written.tmp", "middle", "new"]
    folder.trim(0)
    assert folder.names() == [".being-written.tmp"]
    Folder.at(tmp_path / "nowhere").trim(0)


# --- keys of object stores ----------------------------------------------------------------------------------------


@pytest.fixture
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION"):
        monkeypatch.setenv(f"AWS_{name}", "")  # so that it comes back as it was
        monkeypatch.delenv(f"AWS_{name}")


@pytest.mark.usefixtures("_no_keys")
def test_keys_in_an_address_go_into_the_environment_and_nowhere_else() -> None:
    os.environ["AWS_SESSION_TOKEN"] = "of other keys"
    uri = "s3://AKIA:se%2Fcret@bucket/runs?region=eu-west-1"
    assert without_keys(uri) == "s3://bucket/runs?region=eu-west-1"
    assert (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]) == ("AKIA", "se/cret")
    assert "AWS_SESSION_TOKEN" not in os.environ
    folder = Folder.at(uri)
    assert str(folder) == "s3://bucket/runs"
    assert folder.filesystem.region == "eu-west-1"
    for other in ("gs://anonymous@bucket/runs", "runs", "/a/b@c", "s3://bucket/a@b", "file:///a@b"):
        assert without_keys(other) == other


def test_keys_are_masked_wherever_an_address_is_shown() -> None:
    line = "subsettune tune a.yaml --storage 's3://AKIA:se%2Fcret@bucket/runs?region=x' --run-id a@b"
    assert masked(line) == "subsettune tune a.yaml --storage 's3://***@bucket/runs?region=x' --run-id a@b"
    with pytest.raises(
        StorageError, match=r"^storage must be given with its keys, got 's3://\*\*\*@bucket/runs'\. Write"
    ):
        Folder.at("s3://***@bucket/runs")
    with pytest.raises(StorageError) as caught:
        Folder.at("s3://AKIA:se/cr+et@bucket/runs?secret_key=se/cr+et&region=x")
    shown = "'s3://***@bucket/runs?secret_key=***&region=x'"
    assert str(caught.value).startswith(f"storage must have no secret_key in its query, got {shown}. Set AWS_")


@pytest.mark.usefixtures("_no_keys")
def test_a_slash_of_a_secret_may_stand_as_it_is() -> None:
    assert masked("see s3://AKIA:se/cr/et@bucket/runs, then") == "see s3://***@bucket/runs, then"
    assert without_keys("s3://AKIA:se/cr/et@bucket/runs") == "s3://bucket/runs"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "se/cr/et"
    assert (
        masked("http://127.0.0.1:5000/a@b and s3://bucket/a:b@c") == "http://127.0.0.1:5000/a@b and s3://bucket/a:b@c"
    )


@pytest.mark.usefixtures("_no_keys")
@pytest.mark.parametrize(
    ("query", "region"),
    [
        ("region=eu-west-1", "eu-west-1"),
        ("endpoint_override=127.0.0.1%3A1&scheme=http", "us-east-1"),
        ("endpoint_override=127.0.0.1%3A1&scheme=http&region=a-1", "a-1"),
    ],
)
def test_no_client_asks_a_metadata_service_for_its_region(query: str, region: str) -> None:
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b")
    Folder.at(f"s3://bucket/runs?{query}")
    assert os.environ["AWS_DEFAULT_REGION"] == region
    Folder.at("s3://bucket/runs?region=other-1&endpoint_override=127.0.0.1%3A1&scheme=http")
    assert os.environ["AWS_DEFAULT_REGION"] == region  # what was set stays


def test_keys_that_a_store_refuses_are_told_as_such() -> None:
    class Closed:
        type_name = "s3"

        def open_output_stream(self, path: str) -> object:
            raise OSError("AWS Error ACCESS_DENIED during PutObject operation: Access Denied")

    with pytest.raises(StorageError, match=r"^s3://bucket/a cannot be written: .*\. Check the keys, and what they may"):
        Folder(Closed(), "bucket").write("a", b"1")
