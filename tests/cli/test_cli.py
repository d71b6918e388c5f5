"""The command line as a user meets it: what it prints, what it refuses and how, and its exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_inputs import REMOVED, changed, write
from ruamel.yaml import YAML

from subsettune.cli import main

LISTS = ("selectors", "orders", "transitions", "metrics", "models", "data")
COMMANDS = (
    *(
        "tune",
        "plan",
        "train",
        "run",
        "init",
        "predict",
        "follow",
        "show",
        "status",
        "list",
        "report",
        "export",
        "clean",
        "submit",
        "cluster",
    ),
    *LISTS,
)
PASSES = {"task.tolerance": 0.5}


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a fresh folder and gives its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("subsettune.report.patience.PATIENCE_S", 600.0)  # a slow machine is no part of these tests

    def command(*arguments: str) -> Done:
        capfd.readouterr()
        try:
            code = main(arguments)
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return command


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file, and a finished study in which a policy passed."""
    folder = tmp_path_factory.mktemp("made")
    path = write(folder / "study.yaml", PASSES)
    quiet = ["--inline", "--quiet", "--device", "cpu", "--storage", str(folder / "runs")]
    assert main(["tune", path, "--run-id", "good", *quiet]) == 0
    return folder


@pytest.fixture
def studies(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    return made / "study.yaml"


def _errors(done: Done) -> list[str]:
    """Mistakes as told: one line each, with nothing else on stderr, and exit code 2."""
    assert done.code == 2, done
    lines = done.err.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), done.err
    assert "Traceback" not in done.err
    return [line.removeprefix("error: ") for line in lines]


# --- help --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert "example:" in done.out
    assert f"  subsettune {command}" in done.out or f"example: subsettune {command}" in done.out


def test_help_lists_every_command(run: Run) -> None:
    done = run("--help")
    assert re.findall(r"^    (\w+)", done.out, re.MULTILINE) == list(COMMANDS)


def test_without_a_command_help_is_shown(run: Run) -> None:
    assert run() == run("--help")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom subsettune.cli import main\n"
        "try: main(['tune', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'plotly', 'numpy', 'pyarrow', 'rich', 'subsettune.registry'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "subsettune.cli", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # the best of five: other work on the machine is no fault of ours


def test_list_reads_studies_without_what_runs_them(studies: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom subsettune.cli import main\n"
        f"main(['list', '--storage', {str(tmp_path / 'runs')!r}])\n"
        "print(sorted({'torch', 'ray', 'optuna', 'plotly', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "good" in done.stdout
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cluster"], "the following arguments are required: COMMAND. See: subsettune cluster --help"),
        (["plan"], "the following arguments are required: STUDY.yaml. See: subsettune plan --help"),
        (
            ["plan", "x.yaml", "--jsn"],
            "unrecognized arguments: --jsn. Did you mean '--json'? Known: --address, --cache, --data-root, --help, "
            "--inline, --json, --no-download, --price-per-hour, --set, --storage, --warm-start. See: subsettune "
            "plan --help",
        ),
        (
            ["tune", "x.yaml", "--trials", "many"],
            "argument --trials: invalid int value: 'many'. See: subsettune tune --help",
        ),
        (["clean", "--runs"], "argument --runs: expected at least one argument. See: subsettune clean --help"),
    ],
)
def test_a_wrong_command_line_is_told_like_any_mistake(run: Run, arguments: list[str], message: str) -> None:
    assert _errors(run(*arguments)) == [message]


# --- what a user does --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_plan_prints_and_gives_json(run: Run, made: Path) -> None:
    text = run("plan", str(made / "study.yaml"))
    assert text.code == 0
    assert "training examples" in text.out
    plan = json.loads(run("plan", str(made / "study.yaml"), "--json").out)
    assert (plan["num_examples"], plan["runs"]["search"]["runs"]) == (899, 6)
    assert plan["seconds"] > 0


LOADED = """
import torch
from torch import nn

def net(input_shape, num_outputs):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))
    with torch.no_grad():
        network[1].weight.copy_(torch.arange(network[1].weight.numel()).view_as(network[1].weight) / 1000)
    return network
"""


def test_what_is_told_of_a_network_is_told_once(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plan among its sentences and not on the log; nothing stays muted afterwards."""
    (tmp_path / "loaded_net.py").write_text(LOADED)
    monkeypatch.syspath_prepend(str(tmp_path))
    optimizers = {"space.optimizer": {"choice": ["sgd", "adam"]}, "space.momentum": 0.0}
    study = write(tmp_path / "study.yaml", {"task.model": {"name": "loaded_net:net"}, **optimizers})
    said = "model 'loaded_net:net' begins with the same numbers for every seed in 640 of its 650"
    plan = run("plan", study)
    assert (plan.code, " ".join(plan.out.split()).count(said), plan.err, caplog.messages) == (0, 1, "", [])
    for name in ("subsettune.data", "subsettune.own_code"):
        assert logging.getLogger(name).isEnabledFor(logging.WARNING)


def test_what_is_wrong_with_the_data_is_told_wherever_a_number_is(run: Run, tmp_path: Path) -> None:
    """In the plan, in the log of a study, with its result, in its report and manifest, and by a single training."""
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=300), "__index_level_0__": np.arange(300), "label": np.arange(300) % 3}
    columns["near"] = np.where(np.arange(300) == 0, 2, columns["label"])
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    data = {"source": "./data.parquet"}
    study = write(tmp_path / "study.yaml", {"task.data": data, "study.trials": 2, "study.seeds": 2})
    index = "Column '__index_level_0__' is not read: it is the index that pandas wrote"
    near = "Column 'near' alone tells the label almost perfectly"

    plan = run("plan", study)
    for words in ("Look at the data before you believe a number:", f"- {index}", f"- {near}"):
        assert words in " ".join(plan.out.split())
    plain = json.loads(run("plan", study, "--json").out)
    assert [warning[: len(words)] for warning, words in zip(plain["warnings"], (index, near), strict=True)] == [
        index,
        near,
    ]
    assert (plain["example"], plain["data"]["sizes"]) == (
        "2 numbers, each standardised on its own",
        {"train": 150, "validation": 60, "test": 90},
    )

    tuned = run("tune", study, "--inline", "--storage", "runs", "--run-id", "one", "--device", "cpu")
    assert tuned.code in (0, 3)
    assert f"Look at the data: {near}" in tuned.err
    assert near in " ".join(tuned.out.split())
    assert near in " ".join(run("show", "one").out.split())
    manifest = json.loads((tmp_path / "runs/one/manifest.json").read_text())
    assert manifest["data"]["warnings"] == plain["warnings"]
    page = (tmp_path / "runs/one/report.html").read_text()
    assert ">Look at the data before you believe a number</h2>" in page
    assert "alone tells the label almost perfectly" in page

    assert f"warning: {near}" in run("train", study, "--device", "cpu").err
    write(tmp_path / "study.yaml", {"task.data": {**data, "exclude": ["near", "__index_level_0__"]}})
    assert "Look at the data" not in run("plan", study).out
    assert "warning" not in run("train", study, "--device", "cpu").err


def test_show_list_report_and_export(run: Run, studies: Path, tmp_path: Path) -> None:
    shown = run("show", "good")
    assert shown.code == 0
    assert "subsettune show good --all" in shown.out
    whole = run("show", "good", "--all").out
    assert len(whole.splitlines()) > 1.5 * len(shown.out.splitlines())
    for part, words in (
        ("trials", "met:"),
        ("verification", "candidate-1"),
        ("costs", "Tuning cost"),
        ("curves", "reference"),
    ):
        assert words in run("show", "good", part).out
    summary = json.loads(run("show", "good", "--json").out)
    assert summary["verified"] is True
    assert re.search(r"^good +finished +6/6 +[\d.]+ % ", run("list").out, re.MULTILINE)
    (tmp_path / "runs/good/report.html").unlink()
    assert "Report:" not in run("show", "good").out
    assert run("report", "good").out == f"{tmp_path}/runs/good/report.html\n"
    page = (tmp_path / "runs/good/report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "subsettune follow bundle --save model" in page
    assert run("export", "good", "mine").out == "mine\n"
    assert {"policy.json", "subset.parquet", "evidence.json", "README.md"} <= {
        path.name for path in Path("mine").iterdir()
    }
    text = Path("mine/README.md").read_text()
    assert "Bundle.load('mine')" in text  # the page tells its own place, not that of the study
    assert "runs/good" not in text
    (tmp_path / "runs/good/bundle/policy.json").unlink()
    assert run("report", "good").code == 0
    assert "The bundle cannot be used: " in (tmp_path / "runs/good/report.html").read_text()


def test_show_prints_one_thing(run: Run, studies: Path) -> None:
    for more in (["--all", "--json"], ["trials", "--all"], ["trials", "--json"]):
        assert _errors(run("show", "good", *more)) == [
            "show prints one thing: --json, --all or a part such as trials. Give one of them."
        ]
    (error,) = _errors(run("show", "good", "trails"))
    assert error.endswith("Did you mean 'trials'? See: subsettune show --help")


def test_what_show_says_to_do_next_can_be_pasted(run: Run, studies: Path) -> None:
    lines = [
        line.partition("  # ")[0] for line in run("show", "good").out.splitlines() if line.startswith("subsettune ")
    ]
    assert len(lines) == 4
    for line in lines:
        assert run(*shlex.split(line)[1:]).code == 0, line
    assert Path("models/good/weights.safetensors").exists()
    assert Path("policies/good/policy.json").exists()


def test_train_repeats_a_run_of_verification_to_the_bit(run: Run, studies: Path) -> None:
    summary = json.loads(run("show", "good", "--json").out)
    rows = pq.read_table("runs/good/verification.parquet").to_pylist()
    row = next(r for r in rows if r["candidate"] == summary["best"]["name"] and r["seed"] == 1)
    for policy in ("runs/good/bundle", "runs/good/bundle/policy.json"):
        done = run("train", str(studies), "--policy", policy, "--seed", "1", "--device", "cpu", "--json")
        assert done.code == 0
        assert json.loads(done.out)["metrics"]["test"] == row["test_metric"]


def test_train_follows_the_recipe_and_saves_the_weights(run: Run, studies: Path, tmp_path: Path) -> None:
    import torch

    done = run("train", str(studies), "--save", "weights.pt")
    assert done.code == 0
    assert re.fullmatch(
        r"accuracy: validation 0\.\d{4}, test 0\.\d{4}\n"
        r"[\d.]+ passes \([\d.]+ % of the recipe's compute\), [\d.]+ s, 8\d updates\n"
        r"Saved to weights\.pt: weights alone\. With a folder, as --save DIR/, encoders and classes are kept too, for: "
        r"subsettune predict DIR FILE\n",
        done.out,
    )
    assert set(torch.load("weights.pt", weights_only=True)) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_the_policy_of_the_help_is_one_that_trains(run: Run, studies: Path) -> None:
    """As YAML under any name, as JSON under one that is not .json, and inside a mapping as in a bundle."""
    text = run("train", "--help").out
    found = re.search(r"^( +)phases:\n(?:\1 .*\n)+\1recipe: .*\n", text, re.MULTILINE)
    soup = re.search(r"^ +(soup: {.*})\n", text, re.MULTILINE)
    assert found
    assert soup
    example = textwrap.dedent(found[0]).replace("  - share", f"  - {soup[1]}\n    share")
    plain = YAML(typ="safe", pure=True).load(example)
    Path("p.yaml").write_text(example)
    Path("p.policy").write_text(json.dumps(plain))
    Path("p.json").write_text(json.dumps({"policy": plain, "seed": 0}))
    Path("q.yml").write_text(json.dumps({"policy": plain, "seed": 0}))
    done = [
        run("train", str(studies), "--policy", name, "--json") for name in ("p.yaml", "p.policy", "p.json", "q.yml")
    ]
    assert [one.code for one in done] == [0, 0, 0, 0]
    results = [json.loads(one.out) for one in done]
    assert [phase["passes"] for phase in results[0]["policy"]["phases"]] == [1, 2]
    assert results[0]["policy"]["recipe"] == {"lr": 0.05}
    assert all(result["metrics"] == results[0]["metrics"] for result in results)
    keys = {key for phase in plain["phases"] for key in phase}
    assert keys == {"share", "passes", "selector", "order", "order_options", "transition", "transition_options", "soup"}


def test_train_tells_what_a_soup_took(run: Run, studies: Path) -> None:
    first = {"share": 0.5, "passes": 2, "soup": {"workers": 4, "density": 0.5}}
    Path("soup.json").write_text(json.dumps({"phases": [first, {"passes": 2}]}))
    done = run("train", str(studies), "--policy", "soup.json")
    assert done.code == 0
    number = r"[\d.]+ [kMGT]?FLOP"
    line = (
        rf"soup of 4: ({number}) in all, ({number}) by the longest worker \([\d.]+ s and [\d.]+ s\); [\d.]+ % of the .*"
    )
    found = re.fullmatch(line, done.out.splitlines()[-1])
    assert found
    total, longest = (float(found[i].split()[0]) for i in (1, 2))
    assert total == pytest.approx(4 * longest, rel=0.01)  # equal shards
    assert found[1].split()[1] == found[2].split()[1]


def test_a_bundle_moves_to_other_data_only_when_asked_to(run: Run, studies: Path, tiny_data: dict[str, str]) -> None:
    other = write(Path("other.yaml"), {**PASSES, "task.data": {"source": tiny_data["images"]}})
    (message,) = _errors(run("train", other, "--policy", "runs/good/bundle"))
    fingerprints = re.findall(r"\b[0-9a-f]{64}\b", message)
    assert len(set(fingerprints)) == 2
    assert "On others `subsettune follow BUNDLE --data PATH` derives" in message
    assert message.endswith("and so does `subsettune train` with --transfer.")
    values = write(Path("values.yaml"), {**PASSES, "task.data": {"source": tiny_data["values"]}, "task.metric": "mse"})
    odd = run("train", values, "--policy", "runs/good/bundle", "--transfer")
    assert "warning: task.kind is 'regression', and was 'classification' for the bundle's evidence." in odd.err
    assert "warning: task.metric is 'mse', and was 'accuracy' for the bundle's evidence." in odd.err
    moved = run("train", other, "--policy", "runs/good/bundle", "--transfer")
    assert moved.code == 0
    assert moved.err.startswith("Sizes were derived anew: ")


def test_train_warns_of_settings_that_are_not_those_of_the_evidence(run: Run, studies: Path) -> None:
    words = ["train", str(studies), "--policy", "runs/good/bundle", "--device", "cpu"]
    assert "evidence" not in run(*words).err
    changed = run(*words, "--set", "task.recipe.batch_size=7", "--set", "task.metric=macro_f1")
    assert changed.code == 0
    found = [line for line in changed.err.splitlines() if "evidence" in line]
    assert found == [
        "warning: task.recipe.batch_size is 7, and was 64 for the bundle's evidence.",
        "warning: task.metric is 'macro_f1', and was 'accuracy' for the bundle's evidence.",
    ]


@pytest.mark.slow
def test_tune_goes_on_extends_and_ends_with_3_when_none_passes(run: Run) -> None:
    path = write(Path("study.yaml"), {"task.tolerance": 1e-6})
    first = run("tune", path, "--inline", "--device", "cpu")
    assert first.code == 3
    assert first.out.startswith("No policy passed: ")
    assert "Stop it with Ctrl-C; to go on: subsettune tune study.yaml" in first.err
    again = run("tune", path, "--inline", "--quiet", "--device", "cpu", "--run-id", "study-1")
    assert (again.code, again.out.replace(" --quiet", ""), again.err) == (3, first.out, "")  # the command to go on with
    more = run("tune", path, "--inline", "--quiet", "--device", "cpu", "--run-id", "study-1", "--trials", "8")
    assert more.code == 3
    assert re.search(r"^study-1 +finished +8/8 +- ", run("list").out, re.MULTILINE)
    (message,) = _errors(run("export", "study-1", "x"))
    assert message.startswith("study 'study-1' has no bundle: No policy passed: ")


def test_an_interruption_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from subsettune.study.execute.worker import Worker

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Worker, "train", interrupted)
    done = run("tune", write(Path("study.yaml"), {"task.recipe.lr": 0.12}), "--inline", "--quiet")
    assert done.code == 130
    assert done.err.splitlines()[-1] == (
        "Interrupted; what is finished is kept. Go on with: subsettune tune study.yaml --inline --quiet "
        "--run-id study-1"
    )


def test_an_interruption_before_a_study_has_begun_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("subsettune.study.driver.resolve_study", interrupted)
    done = run("tune", write(Path("study.yaml"), {"task.recipe.lr": 0.12}), "--inline", "--quiet")
    assert done.code == 130
    assert done.err.splitlines()[-1] == (
        "Interrupted before the study had begun: nothing of it is kept. Start it with: subsettune tune study.yaml "
        "--inline --quiet"
    )
    assert list(Path("runs").iterdir()) == []


def test_the_list_says_when_something_was_last_put_on_record(run: Run, studies: Path) -> None:
    for path in Path("runs/good").iterdir():
        os.utime(path, (1_900_000_000, 1_900_000_000))
    assert re.search(r"^good .* 2030-03-17T17:46:40\+00:00$", run("list").out, re.MULTILINE)


def test_clean_shows_sizes_and_asks(run: Run, studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "n")
    kept = run("clean", "--runs", "good", "--keep-caches")
    assert (kept.code, kept.out.splitlines()[-1]) == (0, "Nothing removed.")
    assert re.search(r"^study +\d[\d.]* [kM]B", kept.out, re.MULTILINE)
    monkeypatch.setattr("builtins.input", _nobody)
    assert run("clean", "--runs", "good", "--keep-caches").out.endswith("Nothing removed.\n")
    assert run("clean", "--runs", "good", "--keep-caches", "--yes").out.endswith("Removed 1.\n")
    assert run("clean", "--keep-caches").out == "Nothing to clean.\n"
    assert run("list").out == "No studies in runs. Start one: subsettune tune STUDY.yaml\n"


def _nobody(_: str) -> str:
    raise EOFError


def test_clean_removes_cached_data_and_references(run: Run, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    path = write(Path("study.yaml"), {"task.tolerance": 1e-6, "study.trials": 1})
    assert run("tune", path, "--inline", "--quiet", "--cache", cache).code == 3
    done = run("clean", "--cache", cache, "--yes")
    assert re.findall(r"^(data|references) ", done.out, re.MULTILINE) == ["references", "data"]
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    assert run("clean", "--cache", cache, "--yes").out == "Nothing to clean.\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("selectors", ["random", "stratified", "kcenter", "package.module:Class"]),
        ("orders", ["uniform", "rs2", "infobatch", "sift", "selective_backprop", "package.module:Class"]),
        ("metrics", ["accuracy", "roc_auc", "log_loss", "mse", "r2", "package.module:function"]),
        ("transitions", ["keep", "reset_optimizer", "shrink_perturb", "prune", "package.module:Class"]),
        ("models", ["mlp", "cnn", "resnet18", "package.module:function"]),
        ("data", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "PATH.npz", "package.module:function"]),
    ],
)
def test_what_there_is_to_choose_from(run: Run, command: str, words: list[str]) -> None:
    done = run(command)
    assert done.code == 0
    assert all(re.search(rf"^{re.escape(word)}", done.out, re.MULTILINE) for word in words)


def test_transitions_tell_of_what_a_space_alone_has(run: Run) -> None:
    words = " ".join(run("transitions").out.split())
    assert run("entries").out == run("transitions").out  # the command of version 0.1, for one release more
    assert "prune.between" in words


def test_output_into_a_closed_pipe_is_no_error(studies: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m subsettune.cli show good --json | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


def test_own_data_and_network_by_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own_things.py").write_text(
        "import torch\n"
        "class Points(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 300\n"
        "    def __getitem__(self, i):\n"
        "        g = torch.Generator().manual_seed(i)\n"
        "        return torch.randn(5, generator=g) + 2 * (i % 2), i % 2\n"
        "def network(num_outputs, width): return torch.nn.Sequential(\n"
        "    torch.nn.Linear(5, width), torch.nn.ReLU(), torch.nn.Linear(width, num_outputs))\n"
    )
    own = {"task.data": {"source": "own_things:Points"}, "task.model": {"name": "own_things:network", "width": 7}}
    plan = json.loads(run("plan", write(Path("s.yaml"), {**own, "task.metric": "macro_f1"}), "--json").out)
    assert plan["num_parameters"] == 5 * 7 + 7 + 7 * 2 + 2


# --- wrong input -------------------------------------------------------------------------------------------------


def test_all_mistakes_of_a_file_come_at_once(run: Run) -> None:
    path = write(Path("s.yaml"), {"task.data.source": "mnits", "space.subset_share": 40, "study.trials": 0})
    lines = Path("s.yaml").read_text().splitlines()
    errors = _errors(run("tune", path, "--inline"))
    assert len(errors) == 3
    for error, key in zip(errors, ("source:", "trials:", "subset_share:"), strict=True):
        number = re.match(r"s\.yaml: line (\d+), ", error)
        assert number is not None
        assert key in lines[int(number[1]) - 1]
    assert errors[2].endswith("subset_share must be in (0, 1], got 40. It is a fraction, not a percentage: write 0.4.")
    assert not Path("runs").exists()


def test_a_mistake_that_shows_only_in_the_data_has_its_line_too(run: Run) -> None:
    path = write(Path("s.yaml"), {"space.subset_share": REMOVED, "space.q": {"log": [1, 1000]}})
    (error,) = _errors(run("plan", path))
    assert re.match(r"s\.yaml: line \d+, space\.q: q must be at most 7\.43, got 1000\.0\. ", error)


@pytest.mark.parametrize("command", [("tune", "--inline"), ("plan", "--inline"), ("train",)])
def test_a_metric_that_is_not_there_is_refused_before_anything_is_said(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("ziel.py").write_text("def kosten(targets, outputs):\n    return 0.5\n")
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(sys.modules, "ziel", raising=False)
    goal = {"name": "ziel:kostn", "higher_is_better": False}
    done = run(command[0], write(Path("s.yaml"), {"task.metric": goal}), *command[1:])
    assert done.code == 2
    assert "kostn" in done.err
    assert "part." not in done.err
    assert "goes on with it" not in done.err


def test_a_wrong_price_is_refused_before_data_are_read(run: Run) -> None:
    path = write(Path("s.yaml"), {"task.data.source": "nowhere.csv"})
    (error,) = _errors(run("plan", path, "--price-per-hour", "0"))
    assert error.startswith("--price-per-hour must be above 0, got 0.0. Give what the machines")


def _table(**columns: Any) -> pa.Table:
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "label": np.arange(60) % 2, **columns})


DATA: list[tuple[str, pa.Table, str]] = [
    ("gap", _table(label=np.append(np.arange(57) % 2, [3] * 3)), "labels must use every class from 0 to 3, got none"),
    ("one", _table(label=np.zeros(60, int)), "labels must have at least 2 classes, got only 0. "),
    ("few", _table(label=np.arange(60) == 0), "class '1' must have at least 3 examples, one for each part"),
    ("nan", _table(b=np.where(np.arange(60) == 7, np.nan, 0.0)), "features must be finite"),
    ("text", _table(b=[f"word {i}" for i in range(60)]), "column 'b' must "),
    ("none", _table().slice(0, 0), ""),
    ("float", _table(label=np.arange(60) / 7), "labels of a classification must be whole numbers, got "),
]


@pytest.mark.parametrize(("name", "table", "start"), DATA, ids=[name for name, _, _ in DATA])
def test_data_that_cannot_be_used(run: Run, name: str, table: pa.Table, start: str) -> None:
    pq.write_table(table, f"{name}.parquet")
    (error,) = _errors(run("plan", write(Path("s.yaml"), {"task.data.source": f"{name}.parquet"})))
    assert error.startswith(start)


def test_files_that_cannot_be_read(run: Run) -> None:
    pq.write_table(_table(), "whole.parquet")
    whole = Path("whole.parquet").read_bytes()
    Path("half.parquet").write_bytes(whole[: len(whole) // 2])
    Path("empty.parquet").touch()
    Path("empty.npz").touch()
    for name in ("half.parquet", "empty.parquet", "empty.npz", "absent.npz"):
        (error,) = _errors(run("plan", write(Path("s.yaml"), {"task.data.source": name})))
        assert name in error
        assert error.endswith(".")


def test_what_an_example_is_taken_for_is_told(run: Run) -> None:
    """By `plan` and `train`; sensors by time look like a grey image, and a network for them would not fit."""
    np.savez("sensors.npz", x=np.random.default_rng(0).normal(size=(60, 2, 16)), y=np.arange(60) % 2)
    guess = (
        "taken for an image because it has two dimensions: set data.layout to series for sensors or channels by time"
    )
    for layout, words in ((None, "image (1, 2, 16): "), ("series", "series (2, 16): 2 channels of 16 steps, ")):
        own = {"task.data": {"source": "sensors.npz", **({"layout": layout} if layout else {})}}
        done = run("plan", write(Path("s.yaml"), own), "--json")
        assert done.code == 0
        example = json.loads(done.out)["example"]
        assert example.startswith(words)
        assert (guess in example) == (layout is None)
        told = run("train", "s.yaml").err
        assert (guess in told) == (layout is None)
    text = run("plan", "s.yaml").out
    assert "An example: series (2, 16): 2 channels of 16 steps, standardised by channel." in text
    (error,) = _errors(run("plan", write(Path("s.yaml"), {**own, "task.model": {"name": "cnn"}})))
    assert error.startswith("model 'cnn' needs images (channels, height, width), got inputs of shape (2, 16). Use mlp")
    (error,) = _errors(run("plan", write(Path("s.yaml"), {"task.data": {"source": "sensors.npz", "layout": "wave"}})))
    assert error.endswith("task.data.layout: layout must be one of image, series, tokens, flat, got 'wave'.")


def test_texts_are_no_targets_of_a_regression(run: Run) -> None:
    pq.write_table(_table(label=["cat", "dog"] * 30), "pets.parquet")
    changes = {"task.data.source": "pets.parquet", "task.metric": "mse"}
    (error,) = _errors(run("plan", write(Path("s.yaml"), changes)))
    assert error.startswith("labels of a regression must be numbers, got ")


def test_a_text_of_spaces_is_told_as_it_is(run: Run) -> None:
    pq.write_table(pa.table({"words": ["a b"] * 59 + ["   "], "label": np.arange(60) % 2}), "texts.parquet")
    changes = {"task.data": {"source": "texts.parquet", "text": "words"}}
    (error,) = _errors(run("plan", write(Path("s.yaml"), changes)))
    assert error == "texts must not be empty, got '   ' in column 'words', row 59. Drop such rows."


OWN = """
import torch
from torch import nn
def raises(num_outputs): raise KeyError("width")
def wide(num_outputs): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs + 3))
class Lost(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 10)
    def forward(self, x): return self.lost(x)
def number(): return 3
class Random(torch.utils.data.Dataset):
    def __len__(self): return 90
    def __getitem__(self, i): return torch.rand(4), i % 3
"""


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"task.model": {"name": "own:raises"}}, "model 'own:raises' cannot be built with {}: 'width'."),
        ({"task.model": {"name": "own:wide"}}, "output of model 'own:wide' must be (2, 10) for 2 examples and 10"),
        ({"task.model": {"name": "own:Lost"}}, "'Lost' object has no attribute 'lost'"),
        ({"task.model": {"name": "own:number"}}, "model 'own:number' must return a torch.nn.Module, got int."),
        ({"task.model": {"name": "own:nothing"}}, "model 'own:nothing' cannot be found: "),
        ({"task.model": {"name": "nowhere:net"}}, "model 'nowhere:net' cannot be imported: No module named 'nowhere'."),
        ({"task.data": {"source": "own:Random"}}, "there is a random transform inside."),
        ({"task.recipe.optimizer_options": {"betas": [0.9, 0.9]}}, "optimizer 'sgd' does not fit its options: "),
    ],
)
def test_own_code_that_fails(run: Run, tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    sys.modules.pop("own", None)
    sys.path.insert(0, str(tmp_path))
    try:
        (error,) = _errors(run("plan", write(Path("s.yaml"), changes)))
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("own", None)
    assert part in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0."),
        (["--seeds", "1"], "--seeds must be at least 2, got 1. One run tells nothing of the spread."),
        (["--time-limit-s", "-1"], "--time-limit-s must be positive, got -1.0."),
        (["--run-id", "a/b"], "run_id must be a plain folder name, got 'a/b'. Use letters, digits and dashes."),
        (["--run-id", ""], "run_id must be a plain folder name, got ''. Use letters, digits and dashes."),
        (["--storage", "nowhere://x"], "storage 'nowhere://x' cannot be reached: "),
        (["--storage", "file.txt"], "file.txt cannot be listed: "),
        (["--storage", "file.txt", "--run-id", "a"], " cannot be written: "),
        (["--cache", "file.txt"], "file.txt/data cannot be written: "),
    ],
)
def test_flags_of_tune_that_make_no_sense(run: Run, arguments: list[str], message: str) -> None:
    Path("file.txt").touch()
    (error,) = _errors(run("tune", write(Path("s.yaml")), "--inline", "--quiet", *arguments))
    assert message in error


def test_a_recipe_that_never_learns(run: Run) -> None:
    path = write(Path("s.yaml"), {"task.recipe.lr": 1e-7})
    (error,) = _errors(run("tune", path, "--inline", "--quiet", "--run-id", "flat"))
    assert error.startswith("the conventional recipe does not learn: its accuracy is ")
    assert pq.read_table("runs/flat/reference.parquet").num_rows == 3


def test_a_run_id_of_another_task(run: Run, studies: Path) -> None:
    before = Path("runs/good/manifest.json").read_bytes()
    path = write(Path("s.yaml"), {"task.tolerance": 0.4})
    (error,) = _errors(run("tune", path, "--inline", "--quiet", "--run-id", "good"))
    told = r"run id 'good' belongs to another task: (.*)\. To go on with it: subsettune tune .* ; or choose another "
    found = re.match(told, error)
    assert found
    assert "task.tolerance was 0.5, and is 0.4" in found[1]
    assert Path("runs/good/manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["manifest.json", "trials.parquet", "reference.parquet", "verification.parquet"])
def test_a_damaged_study_names_the_file(run: Run, studies: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "runs/good" / name
    path.write_bytes(path.read_bytes()[:50])
    (error,) = _errors(run("show", "good"))
    assert error.startswith(f"{path} is damaged: ")
    assert "Restore it from a copy" in error
    listed = run("list")
    assert (listed.code, listed.err.startswith(f"warning: {path} is damaged: ")) == (0, True)


@pytest.mark.parametrize("key", ["study", "rounds", "status", "schema"])
def test_a_manifest_that_lacks_something_is_damaged(run: Run, studies: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "runs/good/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[key]
    path.write_text(json.dumps(manifest))
    assert _errors(run("show", "good")) == [f"{path} is damaged: it lacks '{key}'. Restore it from a copy."]


def test_a_damaged_journal_is_told_when_more_is_asked_for(run: Run, studies: Path, tmp_path: Path) -> None:
    (tmp_path / "runs/good/optuna.journal").write_text("garbage\nmore\n")
    (error,) = _errors(run("tune", str(studies), "--inline", "--quiet", "--run-id", "good", "--trials", "7"))
    assert error.startswith(f"the journal is damaged at {tmp_path}/runs/good/optuna.journal, line 1: ")


def test_a_damaged_bundle_is_not_followed(run: Run, studies: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs/good/bundle/policy.json"
    path.write_text(path.read_text().replace('"passes"', '"posses"'))
    for command in (["export", "good", "x"], ["train", str(studies), "--policy", "runs/good/bundle"]):
        (error,) = _errors(run(*command))
        assert error.startswith(f"{path.parent}: policy.json is damaged: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--transfer"], "--transfer needs a bundle to transfer. Give its folder as --policy."),
        (["--policy", "none.json"], "none.json holds no policy: "),
        (["--policy", "p.json"], "p.json: phases.0.share: share must be in (0, 1], got 40.0. "),
        (["--policy", "none.yaml"], "none.yaml cannot be read: No such file or directory. "),
        (["--policy", "p.yaml"], "p.yaml: line 1, phases.0.share: share must be in (0, 1], got 40.0. "),
        (["--policy", "torn.yaml"], "torn.yaml: line 1: not valid YAML: "),
        (["--policy", "words.txt"], "words.txt: the input must be a mapping of keys to values, got 'a policy'."),
        (["--policy", "empty.yml"], "empty.yml: the file is empty. Write phases, each with its passes."),
        (
            ["--policy", "q.yaml"],
            "q.yaml: phases.0.q: q must be 7.43, that of a share of 1, got 0.5. Write share: 0.0672969967 beside it, "
            "or leave q out.",
        ),
        (
            ["--policy", "between.yaml"],
            "between.yaml: line 1, phases.1.transition_options.between: unknown key. Known keys: candidates, examples, "
            "keep, layers, repeats. In a space, prune.between prunes each layer in a phase of its own: it is the share "
            "of the compute after the switch that all but the last of them take.",
        ),
        (
            ["--policy", "order.yaml"],
            "order.yaml: line 1, phases.0.order_options.keep: unknown key. Known keys: none, there are no options.",
        ),
        (
            ["--save", "none/w.pt"],
            "--save must be a file in a folder that can be written, got 'none/w.pt'. No such file or directory: make "
            "the folder, or choose another.",
        ),
        (
            ["--save", "/proc/w.pt"],  # which says that it could be written
            "--save must be a file in a folder that can be written, got '/proc/w.pt'. No such file or directory: make "
            "the folder, or choose another.",
        ),
        (
            ["--save", "full"],
            "FOLDER/full holds what is no part of a saved model: notes.txt. Choose another folder, or empty it.",
        ),
        (
            ["--save", "/proc/none/model"],
            "--save must be a folder that can be written, got '/proc/none/model'. No such file or directory: choose "
            "another.",
        ),
    ],
)
def test_train_refuses_before_it_trains(run: Run, arguments: list[str], message: str) -> None:
    Path("p.json").write_text('{"phases": [{"passes": 1, "share": 40}]}')
    Path("p.yaml").write_text("phases: [{passes: 1, share: 40}]")
    Path("torn.yaml").write_text("phases: [{passes: 1")
    Path("words.txt").write_text("a policy")
    Path("empty.yml").touch()
    Path("q.yaml").write_text("phases: [{passes: 1, q: 0.5}, {passes: 2}]")
    Path("between.yaml").write_text(
        "phases: [{passes: 1}, {passes: 1, transition: prune, transition_options: {between: 0.1}}]"
    )
    Path("order.yaml").write_text("phases: [{passes: 1, order_options: {keep: 0.5}}]")
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    (error,) = _errors(run("train", write(Path("s.yaml")), *arguments))
    assert error.replace(str(Path.cwd()), "FOLDER").startswith(message)


def test_weights_that_find_no_room_are_told_beside_the_result(run: Run) -> None:
    done = run("train", write(Path("s.yaml")), "--save", "/dev/full")
    assert done.code == 2
    assert done.out.startswith("accuracy: validation 0.")
    assert done.err.splitlines()[-1] == (
        "error: /dev/full cannot be written: No space left on device. Train again with another --save."
    )
    assert "Traceback" not in done.err


def test_looking_whether_weights_can_be_saved_changes_nothing(run: Run) -> None:
    Path("kept.pt").write_bytes(b"before")
    for name in ("kept.pt", "new.pt"):
        assert len(_errors(run("train", write(Path("s.yaml")), "--save", name, "--policy", "none.json"))) == 1
    assert Path("kept.pt").read_bytes() == b"before"
    assert not Path("new.pt").exists()


def test_training_that_diverges_ends_with_a_sentence(run: Run) -> None:
    done = run("train", write(Path("s.yaml"), {"task.recipe.lr": 1e8}))
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("error: The loss left the finite numbers after ")


def test_studies_that_are_not_there(run: Run) -> None:
    for command in (["show", "x"], ["report", "x"], ["export", "x", "y"]):
        assert _errors(run(*command)) == ["study 'x' is not in runs. See: subsettune list --storage runs"]
    (error,) = _errors(run("clean", "--runs", "x", "--keep-caches"))
    assert error.startswith("study 'x' is not in runs.")


def test_the_study_of_these_tests_is_sound() -> None:
    assert changed({})["task"]["data"] == {"source": "digits"}
