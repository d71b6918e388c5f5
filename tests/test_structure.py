"""The house: public names, who may import whom, who may print, what the study files say, what help loads."""

from __future__ import annotations

import ast
import contextlib
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import arrows
import numpy as np
import pytest
from arrows import Import
from bare import bare_packages
from facts import made_up_facts
from fake_inputs import changed
from layers import LAYERS
from places import ROOT

import subsettune
from subsettune.errors import MissingPackageError
from subsettune.study.spec.space_check import read_space
from subsettune.study.spec.yaml_file import read

PACKAGE = ROOT / "subsettune"
MODULES = sorted(PACKAGE.rglob("*.py"))
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
# Imports within functions that have a reason, as patterns of (module, what it imports).
LATE = {
    ("subsettune", "subsettune.extras"): "a bare import of the package loads nothing",
    ("subsettune.cli*", "subsettune.*"): "--help, and each command, load what they need and no more",
    ("subsettune.select.selectors.*", "subsettune.select.kernels.*"): "what a selector costs is known without torch",
    ("subsettune.bundle.bundle", "subsettune.*"): "a bundle is read without torch, and followed with it",
    ("subsettune.train", "subsettune.train.loop"): "its names are loaded on first use",
    ("subsettune.study.spec.*", "subsettune.train.*"): "spaces and policies are read without torch",
    ("subsettune.study.driver", "subsettune.study.execute.ray*"): "Ray only where a study runs on it",
    ("subsettune.study.execute.node_check", "subsettune.*"): "other versions are told before what they cannot import",
    ("subsettune.train.phase_switch", "subsettune.train.soup.apart"): "Ray only where a soup is given processes",
}
HOMES = {
    "ray": ("study/execute/", "cluster/", "train/soup/", "integrations/ray_train.py"),
    "optuna": ("study/search/",),
    "rich": ("report/",),
    "plotly": ("report/",),
    "torchvision": ("data/", "models/"),
    "sklearn": ("data/", "integrations/"),
    "pandas": ("found.py",),
}
PRINTERS = ("cli/", "report/", "cluster/", "integrations/sklearn.py")  # as scikit-learn does if asked by `verbose`


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return arrows.imports_of(PACKAGE)


def test_public_names() -> None:
    names = ["Bundle", "Callback", "DataPaths", "Found", "Phase", "Policy", "Run", "StopRun", "Study", "Task"]
    names += ["TaskFacts", "TrainedModel", "TuneOptions", "load_model", "load_study", "session", "train", "tune"]
    assert sorted(subsettune.__all__) == names
    assert dir(subsettune) == names
    for name in names:
        assert getattr(subsettune, name) is not None
    with pytest.raises(AttributeError, match="module 'subsettune' has no attribute 'tuna'"):
        _ = subsettune.tuna


# --- arrows -----------------------------------------------------------------------------------------------------------


def test_every_module_lies_in_a_room() -> None:
    parts = {arrows.room(arrows.module_name(path, PACKAGE)) for path in MODULES}
    assert parts <= {part for layer in LAYERS for part in layer.rooms}


def test_imports_go_down(imports: list[Import]) -> None:
    assert arrows.arrows_up(imports, LAYERS) == set()


def test_no_modules_need_each_other(imports: list[Import]) -> None:
    assert arrows.cycles(imports) == []


def test_late_imports_have_a_reason(imports: list[Import]) -> None:
    assert arrows.late_imports(imports, LATE) == set()
    assert arrows.unused(imports, LATE) == set(), "no import needs these reasons any more: remove them from LATE"


def test_a_function_of_more_than_six_parameters_says_why_beside_it() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            if not isinstance(node, ast.FunctionDef):
                continue
            names = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
            first = min([decorator.lineno for decorator in node.decorator_list], default=node.lineno)
            said = lines[first - 2].strip().startswith("# More than six parameters: ")
            assert said == (len(names - {"self", "cls"}) > 6), f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"


def test_heavy_packages_have_one_home(imports: list[Import]) -> None:
    for package, homes in HOMES.items():
        users = {i.source for i in imports if i.target.split(".")[0] == package}
        allowed = tuple(f"subsettune.{home.removesuffix('py').replace('/', '.')}" for home in homes)
        assert {user for user in users if not f"{user}.".startswith(allowed)} == set(), f"{package} outside {homes}"


def tree(root: Path, files: dict[str, str]) -> list[Import]:
    """Imports of a made-up package `house`; an `__init__` is put into every folder."""
    for name, text in files.items():
        path = root / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in [root / "house", *(path.parent for path in (root / "house").rglob("*.py"))]:
        (folder / "__init__.py").touch()
    return arrows.imports_of(root / "house")


UP = (
    ("study", ("bundle", "report", "api", "cli")),
    ("bundle", ("report", "api", "cli")),
    ("report", ("bundle", "api", "cli")),
    ("api", ("cli",)),
    ("train", ("study",)),
    ("select", ("train",)),
    ("data", ("select",)),
    ("policy", ("data",)),
    ("config", ("task", "text")),
)
WAYS = (
    "from house.{0} import x",
    "import house.{0}.inner",
    "from house import {0}",
    "def f():\n    from house.{0}.inner import x",
)


def test_an_arrow_that_goes_up_is_seen_whichever_way_it_is_written(tmp_path: Path) -> None:
    for source, targets in UP:
        for target in targets:
            for i, way in enumerate(WAYS):
                files = {f"{source}/outer.py": way.format(target), f"{target}/inner.py": "import house.facts"}
                found = arrows.arrows_up(tree(tmp_path / f"{source}_{target}_{i}", {**files, "facts.py": ""}), LAYERS)
                assert {pair[0] for pair in found} == {f"house.{source}.outer"}, f"{source}: {way.format(target)}"


def test_arrows_that_go_down_are_none_of_those(tmp_path: Path) -> None:
    down = {
        "api.py": "import house.study.a, house.bundle.a, house.report.a, house.train.a, house.errors",
        "bundle/a.py": "from house.study import a\nfrom house.text import x",
        "report/a.py": "from house.study.a import x\nfrom house.report import b",
        "report/b.py": "from house.train import a",
        "study/a.py": "import house.train.a",
        "train/a.py": "import house.policy, torch",
        **dict.fromkeys(("text.py", "policy.py", "errors.py"), "import house.errors"),
    }
    assert arrows.arrows_up(tree(tmp_path, down), LAYERS) == set()


def test_what_is_for_type_checkers_alone_is_no_arrow(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.study import x\n"
    assert arrows.arrows_up(tree(tmp_path, {"train/a.py": text, "study/b.py": ""}), LAYERS) == set()


def test_a_room_that_nobody_drew_is_told(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a room that is in no layer"):
        arrows.arrows_up(tree(tmp_path, {"attic.py": "from house.data import x", "data/a.py": ""}), LAYERS)


def test_cycles_are_seen_within_a_package_and_through_its_face(tmp_path: Path) -> None:
    neighbours = {"train/a.py": "from house.train import b", "train/b.py": "import house.train.c", "train/c.py": ""}
    assert arrows.cycles(tree(tmp_path / "none", neighbours)) == []
    ring = {**neighbours, "train/c.py": "from house.train.a import x"}
    assert arrows.cycles(tree(tmp_path / "ring", ring)) == [("house.train.a", "house.train.b", "house.train.c")]
    face = {**neighbours, "train/__init__.py": "from house.train.a import x", "train/c.py": "from house.train import x"}
    assert arrows.cycles(tree(tmp_path / "face", face)) == [
        ("house.train", "house.train.a", "house.train.b", "house.train.c")
    ]
    around = {"select/__init__.py": "import house.data.a", "data/a.py": "import house.select.b", "select/b.py": ""}
    assert arrows.cycles(tree(tmp_path / "around", around)) == [("house.data.a", "house.select")]
    late = {**ring, "train/c.py": "def f():\n    from house.train.a import x"}
    assert arrows.cycles(tree(tmp_path / "late", late)) == []


def test_late_imports_are_seen_and_reasons_that_nobody_needs(tmp_path: Path) -> None:
    files = {
        "cli/a.py": "def f():\n    from house.data import b",
        "train/c.py": "class C:\n    def f(self):\n        import house.data.b, os\n",
        "data/b.py": "import house.facts",
        "facts.py": "",
    }
    found, allowed = tree(tmp_path, files), {("house.cli*", "house.*"): "light", ("house.api", "house.*"): "light"}
    assert arrows.late_imports(found, allowed) == {("house.train.c", "house.data.b")}
    assert arrows.unused(found, allowed) == {("house.api", "house.*")}


# --- modules ----------------------------------------------------------------------------------------------------------


def test_only_the_command_line_prints() -> None:
    for path in MODULES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert not prints or _name(path).startswith(PRINTERS), f"{_name(path)}:{prints[0].lineno} prints"


def test_every_module_opens_with_a_docstring_and_imports() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text())), f"{_name(path)} has no docstring"
        with contextlib.suppress(MissingPackageError):  # of hosts, which only `make test-hosts` installs
            importlib.import_module(arrows.module_name(path, PACKAGE))


def test_no_test_imports_a_test() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        modules = {name for i in _names_imported(path) for name in i.split(".")}
        tests = {name for name in modules if name.startswith("test_") or name == "conftest"}
        assert not tests, f"{path.relative_to(ROOT)} imports {', '.join(tests)}: put what they share into tests/support"


def _names_imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


# --- study files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_study_file_is_read_and_its_policies_can_be_built(path: Path) -> None:
    study = read(path)
    space = read_space(study.space)
    facts = made_up_facts(num_examples=40_000, reference_passes=study.task.recipe.epochs)
    rng = np.random.default_rng(0)
    for _ in range(50):
        policy = space.policy(space.sample(rng), facts)
        assert 0 < policy.cost(facts) < facts.reference_flops
        study.task.recipe.override(policy.recipe)
    assert f"subsettune tune search_spaces/{path.name}" in path.read_text()


# --- what is loaded ---------------------------------------------------------------------------------------------------


def _loaded(code: str, heavy: set[str]) -> set[str]:
    told = f"{code}\nimport sys\nprint(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_what_is_light_loads_nothing_heavy() -> None:
    heavy = {"torch", "ray", "optuna", "plotly", "sklearn", "scipy", "torchvision"}
    assert _loaded("import subsettune\nfrom subsettune import Task, Policy, Study", heavy) == set()
    assert _loaded("from subsettune.study.results.folder import StudyFolder", heavy) == set()
    assert _loaded("from subsettune import train, Bundle", heavy - {"torch"}) == set()


FOLLOW = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from subsettune import Bundle, DataPaths, train
bundle = Bundle.load(sys.argv[3])
options = train.RunOptions(places=DataPaths(cache=sys.argv[4]), num_threads=1, device="cpu", splits=("test",))
print(train.run(bundle.task, bundle.policy, bundle.seed, options=options).metrics["test"])
"""


@pytest.mark.slow
def test_a_bundle_is_followed_with_torch_numpy_and_pyarrow_alone(tmp_path: Path, tiny_data: dict[str, str]) -> None:
    where = subsettune.TuneOptions(
        storage=str(tmp_path / "runs"),
        places=subsettune.DataPaths(cache=str(tmp_path)),
        executor="inline",
        device="cpu",
    )
    study = changed({"task.data": {"source": tiny_data["images"]}, "task.tolerance": 0.7, "study.trials": 2})
    view = subsettune.tune(study, run_id="a", options=where).view
    found = subsettune.Bundle.load(view.summary.bundle)
    arguments = [str(bare_packages(tmp_path / "bare")), str(ROOT), view.summary.bundle, str(tmp_path / "fresh")]
    done = subprocess.run([sys.executable, "-S", "-c", FOLLOW, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {run.seed: run.metric for run in found.evidence.best.runs}
    assert float(done.stdout) == rows[found.seed]
