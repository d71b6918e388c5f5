"""Tokens of clusters, on real heads with and without: a driver gets in, or is told in a sentence why not."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray_heads import head

from subsettune.errors import StudyError
from subsettune.study.execute.ray_cluster import Resources, cluster
from subsettune.study.execute.ray_proof import prove_nodes
from subsettune.study.execute.ray_tokens import mode_restored

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
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
    with head(homes["theirs"], RAY_AUTH_MODE="token") as closed, head(homes["none"], RAY_AUTH_MODE="disabled") as free:
        yield {"closed": closed, "free": free}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("which", "home", "address"),
    [("free", "theirs", "auto"), ("free", "none", None), ("closed", "theirs", None), ("closed", "theirs", "auto")],
)
def test_a_driver_sends_what_the_cluster_takes(
    which: str, home: str, address: str | None, heads: dict[str, str], homes: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Ray: a study on this machine leaves a token behind, `auto` sends it anywhere, an address nowhere."""
    monkeypatch.setenv("HOME", str(homes[home]))
    if address == "auto":  # as in a job of that cluster; without it Ray looks for any on this machine
        monkeypatch.setenv("RAY_ADDRESS", heads[which])
    with cluster(Resources(address=address or heads[which])) as slots:
        assert slots == 1
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


def test_a_node_that_lets_actors_die_is_named_before_the_first_run(
    heads: dict[str, str], homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray: a driver with a token among nodes without, connected by hand."""
    monkeypatch.setenv("HOME", str(homes["theirs"]))
    monkeypatch.setenv("RAY_ADDRESS", heads["free"])
    with mode_restored():
        ray.init("auto", log_to_driver=False, logging_level="CRITICAL")
        try:
            with pytest.raises(StudyError, match=r"^node \S+ starts no worker for this driver: .*was cancelled"):
                prove_nodes(print)
        finally:
            ray.shutdown()
