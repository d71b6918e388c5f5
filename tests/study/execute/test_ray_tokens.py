"""Tokens of clusters, on real heads with and without: a driver gets in, or is told in a sentence why not."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.authentication import authentication_token_setup
from ray_heads import free_port, head
from ray_marks import RAY_MARKS

from subsettune.errors import StudyError
from subsettune.study.execute import ray_start
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.execute.ray_tokens import settings_restored

pytestmark = RAY_MARKS
CLIENT_PORTS = {"closed": free_port(), "free": free_port()}
TOKENS = {"theirs": "a" * 40, "other": "b" * 40}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in (*TOKENS, "none")}
    for name, token in TOKENS.items():
        (folders[name] / ".ray").mkdir()
        (folders[name] / ".ray" / "auth_token").write_text(token)
    return folders


@pytest.fixture(scope="module")
def heads(homes: dict[str, Path]) -> Iterator[dict[str, str]]:
    """Addresses of a cluster that wants the token `theirs`, and of one that wants none."""
    flags = {which: f"--ray-client-server-port={port}" for which, port in CLIENT_PORTS.items()}
    with (
        head(homes["theirs"], flags["closed"], RAY_AUTH_MODE="token") as closed,
        head(homes["none"], flags["free"], RAY_AUTH_MODE="disabled") as free,
    ):
        yield {"closed": closed, "free": free}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("which", "home", "way"),
    [
        ("free", "theirs", "auto"),
        ("free", "none", "direct"),
        ("free", "theirs", "client"),
        ("closed", "theirs", "auto"),
        ("closed", "theirs", "direct"),
        ("closed", "theirs", "client"),
    ],
)
def test_a_driver_sends_what_the_cluster_takes(
    which: str, home: str, way: str, heads: dict[str, str], homes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ray: a study on this machine leaves a token behind, `auto` sends it anywhere, an address nowhere."""
    monkeypatch.setenv("HOME", str(homes[home]))
    if way == "auto":  # as in a job of that cluster; without it Ray looks for any on this machine
        monkeypatch.setenv("RAY_ADDRESS", heads[which])
    address = {"auto": "auto", "direct": heads[which], "client": f"ray://127.0.0.1:{CLIENT_PORTS[which]}"}[way]
    with cluster(Resources(address=address)) as slots:
        assert slots == 1
        assert ray.get(ray.remote(os.getenv).remote("RAY_AUTH_TOKEN"), timeout=60) is None
        assert os.environ["RAY_AUTH_MODE"] == {"free": "disabled", "closed": "token"}[which]
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.parametrize(
    ("home", "words"),
    [("none", "wants a token, and there is none here."), ("other", "wants another token than the one here.")],
)
def test_a_cluster_that_lets_nobody_in_says_so_at_once(
    home: str, words: str, heads: dict[str, str], homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Ray: what it says itself is that no cluster is there, after a minute."""
    monkeypatch.setenv("HOME", str(homes[home]))
    started = time.monotonic()
    sentence = (
        f"the cluster at '{heads['closed']}' (--address) {words} Put that of its head node, ~/.ray/auth_token, into "
        "the same file here, or into RAY_AUTH_TOKEN."
    )
    with (
        pytest.raises(StudyError, match=f"^{re.escape(sentence)}$"),
        cluster(Resources(address=heads["closed"])),
    ):
        pass
    assert time.monotonic() - started < 10
    assert "gcs_client" not in capfd.readouterr().err
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_study_on_this_machine_leaves_no_token_behind(
    homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what Ray does about tokens before it starts anything; later clusters would want the one it left."""

    def init(**options: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(authentication_token_setup, "_warn_token_auth_enabled", lambda: None)
            authentication_token_setup.enable_token_auth_by_default()
        authentication_token_setup.ensure_token_if_auth_enabled(create_token_if_missing=True)

    monkeypatch.setenv("HOME", str(homes["none"]))
    monkeypatch.setattr(ray, "init", init)
    with settings_restored():
        ray_start.start(print)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert re.fullmatch("[0-9a-f]{64}", os.environ["RAY_AUTH_TOKEN"])
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & os.environ.keys()
    left = homes["none"] / ".ray" / "auth_token"
    assert not left.exists()
    with settings_restored():
        init()
    assert left.exists()
    left.unlink()
