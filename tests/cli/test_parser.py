"""Mistyped commands, flags and run ids: one sentence with what was meant, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from subsettune.cli import main


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            "tuen s.yaml",
            ["invalid choice: 'tuen' (choose from 'tune', ", "Did you mean 'tune'? See: subsettune --help"],
        ),
        ("exprot a b", ["invalid choice: 'exprot' ", "Did you mean 'export'? See: subsettune --help"]),
        (
            "tune s.yaml --trails 5",
            [
                "unrecognized arguments: --trails 5. Did you mean '--trials'? Known: --accept-no-policy, --address, ",
                "subsettune tune --help",
            ],
        ),
        ("tune s.yaml --run_id=x", ["unrecognized arguments: --run_id=x. Did you mean '--run-id'? Known: "]),
        (
            "plan s.yaml --qqq",
            ["unrecognized arguments: --qqq. Known: --address, --cache, --data-root, --help, --inline, "],
        ),
        ("plan s.yaml other", ["unrecognized arguments: other. See: subsettune plan --help"]),
        ("train s.yaml --device gpu", ["invalid choice: 'gpu' (choose from 'auto', 'cpu', 'cuda'). See: "]),
        (
            "show digits1",
            ["study 'digits1' is not in runs. Did you mean 'digits-1'? See: subsettune list --storage"],
        ),
        ("report digit-1", ["Did you mean 'digits-1'?"]),
        ("export digits_1 x", ["Did you mean 'digits-1'?"]),
        ("clean --yes --runs digts-1", ["study 'digts-1' is not in runs. Did you mean 'digits-1'?"]),
        ("show zzz", ["study 'zzz' is not in runs. See: subsettune list --storage runs"]),
    ],
)
def test_what_was_meant(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUBSETTUNE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "runs/digits-1").mkdir(parents=True)
    try:
        code = main(arguments.split())
    except SystemExit as left:
        code = int(left.code or 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith("error: ")
    assert [part for part in parts if part not in line] == []
