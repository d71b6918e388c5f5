"""The house: public names, who may import whom, who may print, what the study files say, what help loads."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from fake_inputs import changed
from places import ROOT

import subsettune
from subsettune.facts import TaskFacts
from subsettune.study.spec.space_check import read_space
from subsettune.study.spec.yaml_file import read

PACKAGE = ROOT / "subsettune"
MODULES = sorted(PACKAGE.rglob("*.py"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
# Data flow down one way; a layer may import itself and those before it.
LAYERS = (
    ("errors", "config", "ledger", "policy", "task", "plugins", "storage", "models", "transformer", ""),
    ("data",),
    ("select",),
    ("train",),
    ("study", "bundle", "report"),  # a study ends in a bundle and a report, and both read studies
    ("integrations", "cluster"),
    ("names", "cli"),
)
HOMES = {
    "ray": ("study/tune.py", "cluster/", "train/soup.py"),
    "optuna": ("study/search.py", "study/journal.py", "study/samplers.py", "study/backend.py"),
    "rich": ("report/",),
    "plotly": ("report/",),
    "torchvision": ("data/", "models.py"),
    "sklearn": ("data/",),
}
PRINTERS = ("cli.py", "report/", "cluster/")


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _imports(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere, except for type checkers alone."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path} imports relatively"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _layer(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    return next((i for i, parts in enumerate(LAYERS) if part in parts), 0)  # a name of the package itself


def test_public_names() -> None:
    names = ["Bundle", "Phase", "DataPaths", "Policy", "Study", "Task", "TaskFacts", "TuneOptions", "train", "tune"]
    assert sorted(subsettune.__all__) == names
    assert dir(subsettune) == names
    for name in names:
        assert getattr(subsettune, name) is not None
    with pytest.raises(AttributeError, match="module 'subsettune' has no attribute 'tuna'"):
        _ = subsettune.tuna


def test_every_module_belongs_to_a_layer() -> None:
    parts = {_name(path).split("/")[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert parts <= {part for layer in LAYERS for part in layer}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_go_down(path: Path) -> None:
    mine = _layer(f"subsettune.{_name(path).removesuffix('.py').split('/')[0]}")
    above = [name for name in _imports(path) if name.startswith("subsettune") and _layer(name) > mine]
    if path == PACKAGE / "__init__.py":
        return  # it holds the public names
    assert not above


@pytest.mark.parametrize("package", HOMES)
def test_heavy_packages_have_one_home(package: str) -> None:
    users = {_name(path) for path in MODULES if any(name.split(".")[0] == package for name in _imports(path))}
    strays = {name for name in users if not name.startswith(HOMES[package])}
    assert not strays


@pytest.mark.parametrize("path", [p for p in MODULES if not _name(p).startswith(PRINTERS)], ids=_name)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_opens_with_a_docstring_and_imports(path: Path) -> None:
    module = _name(path).removesuffix(".py").replace("/", ".").removesuffix("__init__").rstrip(".")
    found = importlib.import_module(f"subsettune.{module}".rstrip("."))
    assert found.__doc__


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_study_file_is_read_and_its_policies_can_be_built(path: Path) -> None:
    study = read(path)
    space = read_space(study.space)
    facts = TaskFacts(
        num_examples=40_000,
        num_outputs=10,
        num_parameters=10_000,
        forward_flops=10**6,
        backward_flops=2 * 10**6,
        reference_passes=study.task.recipe.epochs,
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        policy = space.policy(space.sample(rng), facts)
        assert 0 < policy.cost(facts) < facts.reference_flops
        study.task.recipe.override(policy.recipe)
    assert f"subsettune tune search_spaces/{path.name}" in path.read_text()


def _loaded(code: str, heavy: set[str]) -> set[str]:
    told = f"{code}\nimport sys\nprint(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_is_light_loads_nothing_heavy() -> None:
    heavy = {"torch", "ray", "optuna", "plotly", "sklearn", "scipy", "torchvision"}
    assert _loaded("import subsettune\nfrom subsettune import Task, Policy, Study", heavy) == set()
    assert _loaded("from subsettune.study.results.folder import StudyFolder", heavy) == set()
    assert _loaded("from subsettune import train, Bundle", heavy - {"torch"}) == set()


def _bare(folder: Path) -> Path:
    """A folder of links to torch, numpy, pyarrow and what they require, as if nothing else were installed."""
    waiting, seen = ["torch", "numpy", "pyarrow"], set[str]()
    folder.mkdir()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        seen.add(name)
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
        required = [re.match(r"[\w.-]+", line) for line in found.requires or [] if "extra ==" not in line]
        waiting += [match[0] for match in required if match and re.sub(r"[-_.]+", "-", match[0]).lower() not in seen]
    return folder


FOLLOW = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from subsettune import Bundle, Places, train
bundle = Bundle.load(sys.argv[3])
options = train.RunOptions(places=Places(cache=sys.argv[4]), num_threads=1, device="cpu", splits=("test",))
print(train.run(bundle.task, bundle.policy, bundle.seed, options=options).metrics["test"])
"""


def test_a_bundle_is_followed_with_torch_numpy_and_pyarrow_alone(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    where = subsettune.TuneOptions(
        storage=str(tmp_path / "runs"),
        places=subsettune.DataPaths(cache=str(tmp_path)),
        executor="inline",
        device="cpu",
    )
    study = changed({"task.data": {"source": tiny_data["images"]}, "task.tolerance": 0.7, "study.trials": 2})
    view = subsettune.tune(study, run_id="a", options=where)
    found = subsettune.Bundle.load(view.summary.bundle)
    arguments = [str(_bare(tmp_path / "bare")), str(ROOT), view.summary.bundle, str(tmp_path / "fresh")]
    done = subprocess.run([sys.executable, "-S", "-c", FOLLOW, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {run.seed: run.metric for run in found.evidence.best.runs}
    assert float(done.stdout) == rows[found.seed]
