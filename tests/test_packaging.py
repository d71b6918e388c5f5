"""What is installed, and what a base install leaves out: extras, pins, the version, and how a lack is told."""

from __future__ import annotations

import ast
import importlib
import itertools
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT
from ruamel.yaml import YAML

import subsettune
from subsettune import extras
from subsettune.errors import MissingPackageError, SubsettuneError

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE = {"numpy", "pyarrow", "torch"}
HOSTS = ("dashboard", "jobs", "mlflow", "tensorboard", "wandb")  # which only `make test-hosts` installs
TABLES = ("flaml", "autogluon")  # likewise; their estimators are scikit-learn's, and need no study
PROGRAM = "optuna-dashboard"  # is run, and not imported
FOLLOWERS = ("accelerate", "keras", "lightning", "ray-train", "skorch", "transformers")  # likewise, and without studies
EXTRAS = {extra: [Requirement(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()}


def _imported() -> dict[str, set[str]]:
    """Foreign packages that the package imports anywhere, and the modules that do, except for type checkers alone."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "subsettune").rglob("*.py"):
        for node in ast.walk(_without_typing(ast.parse(path.read_text(encoding="utf-8")))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"subsettune"}:
                found.setdefault(name, set()).add(path.name)
    return found


def _without_typing(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    return tree


def test_a_base_install_is_three_packages() -> None:
    assert {Requirement(line).name for line in PROJECT["dependencies"]} == BASE


def test_every_package_that_is_imported_is_in_the_base_or_in_an_extra() -> None:
    strays = {name: users for name, users in _imported().items() if name not in BASE | set(extras.PACKAGES)}
    assert not strays


def test_the_extras_are_those_of_the_project_file() -> None:
    for package, extra in extras.PACKAGES.values():
        assert package in {r.name for r in EXTRAS[extra]}, f"{package} is not in the extra {extra}"
    told = {package for package, _ in extras.PACKAGES.values()}
    ours = [extra for extra in EXTRAS if extra not in ("test", "docs")]
    assert {r.name for extra in ours for r in EXTRAS[extra]} - {"subsettune", PROGRAM} == told


def test_each_larger_extra_holds_the_smaller() -> None:
    inside = {
        name: {extra for r in found if r.name == "subsettune" for extra in r.extras} for name, found in EXTRAS.items()
    }
    expected = {"images": set(), "sklearn": set(), "tune": {"images"}, "docs": set(), "test": {"tune", "docs"}}
    expected |= {host: {"tune"} for host in HOSTS} | {host: set() for host in FOLLOWERS}
    assert inside == expected | {host: {"sklearn"} for host in TABLES}


def test_the_constraints_pin_all_that_the_tests_install() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
    wanted_by_tests = (found for extra, found in EXTRAS.items() if extra not in (*HOSTS, *TABLES, *FOLLOWERS))
    waiting = [*map(Requirement, PROJECT["dependencies"]), *itertools.chain.from_iterable(wanted_by_tests)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, asked = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if name == "subsettune" or (name, asked) in seen:
            continue
        seen.add((name, asked))
        assert name in pinned, f"{name} is not pinned"
        waiting += _required(name, asked)


def _required(name: str, asked: frozenset[str]) -> list[Requirement]:
    """What an installed package requires here, with some of its extras."""
    found = [Requirement(line) for line in metadata.requires(name) or []]
    environments = [{"extra": extra} for extra in asked or {""}]
    return [r for r in found if r.marker is None or any(r.marker.evaluate(e) for e in environments)]


# --- the version -------------------------------------------------------------------------------------------------


def test_there_is_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", subsettune.__version__)
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == subsettune.__version__  # type: ignore[index]


def test_the_version_is_told_and_nothing_heavy_is_loaded() -> None:
    code = (
        "import sys\nfrom subsettune.cli import main\n"
        "try: main(['--version'])\nexcept SystemExit as left: assert left.code == 0\n"
        f"print(sorted({(BASE | set(extras.PACKAGES))!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"subsettune {subsettune.__version__}", "[]"]


# --- a package that is missing -----------------------------------------------------------------------------------

HIDE = f"""
import sys
from importlib.machinery import PathFinder
class WithoutExtras:
    @staticmethod
    def find_spec(name, path=None, target=None):
        is_hidden = name.partition(".")[0] in {set(extras.PACKAGES)!r}
        return None if is_hidden else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
"""
IMAGES = 'Install it: pip install "subsettune[images]"'
TUNE = 'Install it: pip install "subsettune[tune]"'
TASK = """
from subsettune import DataPaths, Task, train
def facts(source):
    recipe = {"lr": 0.1, "batch_size": 8, "epochs": 1}
    task = Task(data={"source": source}, model={"name": "mlp"}, recipe=recipe, tolerance=0.1)
    return train.facts(task, DataPaths(cache="cache"))
"""
LACKING = {
    "from subsettune import tune": f"subsettune.tune needs FIRST, which is not installed. {TUNE}",
    "from subsettune import models, task; models.make(task.Model(name='resnet18'), (3, 8, 8), 10)": (
        f"model 'resnet18' needs torchvision, which is not installed. {IMAGES}"
    ),
    "from subsettune.data.images import decode; decode(b'', 'row 1')": (
        f"an encoded image needs pillow, which is not installed. {IMAGES}"
    ),
    "from subsettune.data.rand_augment import rand_augment; rand_augment(None, 3, None)": (
        f"rand_augment of a soup needs torchvision, which is not installed. {IMAGES}"
    ),
    "facts('digits')": f"data set 'digits' needs scikit-learn, which is not installed. {TUNE}",
    "import subsettune.integrations.sklearn": (
        "subsettune.integrations.sklearn needs scikit-learn, which is not installed. Install it: "
        'pip install "subsettune[sklearn]"'
    ),
    "facts('mnist')": f"data set 'mnist' needs torchvision, which is not installed. {IMAGES}",
    **{
        f"import subsettune.integrations.{extra.replace('-', '_')}": (
            f"subsettune.integrations.{extra.replace('-', '_')} needs {extra.partition('-')[0]}, which is not "
            f'installed. Install it: pip install "subsettune[{extra}]"'
        )
        for extra in FOLLOWERS
    },
    "from subsettune.integrations.mlflow_bundle import load_bundle; load_bundle('runs:/1/bundle')": (
        'load_bundle needs mlflow, which is not installed. Install it: pip install "subsettune[mlflow]"'
    ),
}


def _on_a_base_install(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HIDE + code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_what_a_base_install_lacks_is_told_with_the_line_that_installs_it(tmp_path: Path) -> None:
    loop = f"""
from subsettune.errors import MissingPackageError
for code in {list(LACKING)!r}:
    try: exec(code)
    except MissingPackageError as error: print(error)
"""
    done = _on_a_base_install(TASK + loop, tmp_path)
    told = re.sub(r"(subsettune.tune needs) [\w.-]+", r"\1 FIRST", done.stdout)  # whichever is imported first
    assert told.splitlines() == list(LACKING.values()), done.stderr


@pytest.mark.slow
def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    study = ROOT / "search_spaces" / "digits.yaml"
    done = _on_a_base_install(f"from subsettune.cli import main\nsys.exit(main(['plan', {str(study)!r}]))", tmp_path)
    assert done.returncode == 2
    told = re.escape(f", which is not installed. {TUNE}")
    last = done.stderr.splitlines()[-1]  # what takes long is named before it
    assert re.fullmatch(rf"error: subsettune plan needs [\w.-]+{told}", last), done.stderr


@pytest.mark.slow
def test_a_users_function_may_give_tensors_where_pillow_is_not_installed(tmp_path: Path) -> None:
    function = "def data():\n    return [(torch.full((1, 4, 4), float(i)), i % 2) for i in range(40)]\n"
    (tmp_path / "mine.py").write_text(f"import torch\n{function}")
    done = _on_a_base_install(f"{TASK}\nprint(facts('mine:data').num_features)", tmp_path)
    assert done.stdout == "16\n", done.stderr


def test_other_failed_imports_are_left_as_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_thing'"), extras.needed_for("it"):
        importlib.import_module("no_such_thing")
    with pytest.raises(ImportError, match="ray, which") as caught, extras.needed_for("it"):
        raise ModuleNotFoundError("No module named 'ray.tune'", name="ray.tune")
    assert isinstance(caught.value, MissingPackageError)
    assert isinstance(caught.value, SubsettuneError)


# --- continuous integration --------------------------------------------------------------------------------------


def test_every_python_that_is_promised_is_tested() -> None:
    workflow = YAML(typ="safe", pure=True).load(ROOT / ".github" / "workflows" / "test.yml")
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    promised = [found for line in PROJECT["classifiers"] for found in re.findall(r"Python :: (3\.\d+)$", line)]
    assert tested == promised
    assert promised[0] == PROJECT["requires-python"].removeprefix(">=")


def test_the_hooks_run_the_pinned_tools() -> None:
    hooks = YAML(typ="safe", pure=True).load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]
    commands = [hook["entry"].split() for hook in hooks]
    assert [command[0] for command in commands] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert f"Copyright 2026 {PROJECT['authors'][0]['name']}" in text
