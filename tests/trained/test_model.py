"""A model in hand: the test metric again from the user's own rows, kept and loaded, and what is not loaded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hand_networks
import in_hand
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bare import bare_packages
from places import ROOT
from pyarrow import fs

import subsettune
from subsettune import Policy, Task, TrainedModel, load_model
from subsettune.data import load
from subsettune.errors import ConfigError, DataError, ModelError
from subsettune.storage import Folder
from subsettune.trained.model import check_can_be_saved

PRUNED = Policy(phases=[{"passes": 1}, {"passes": 9, "transition": "prune", "transition_options": {"keep": 0.5}}])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return in_hand.written(tmp_path_factory.mktemp("people"), in_hand.people())


@pytest.fixture(scope="module")
def made(source: str) -> TrainedModel:
    return in_hand.trained(in_hand.task_of(source))[0]


@pytest.fixture
def folder(made: TrainedModel, tmp_path: Path) -> Path:
    made.save(tmp_path / "model")
    return tmp_path / "model"


def rows_held_out(task: Task) -> np.ndarray[Any, Any]:
    rows: np.ndarray[Any, Any] = load(task, in_hand.PLACES).test.rows.numpy()
    return rows


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_metric_of_the_run_comes_out_of_the_users_own_rows(source: str, folder: Path) -> None:
    model, task = load_model(folder), in_hand.task_of(source)
    held_out = in_hand.people().take(pa.array(rows_held_out(task)))
    assert model.score(held_out) == model.origin.metrics["test"]
    shuffled = held_out.select(["label", "where", "city", "account", "age"])
    assert model.score(shuffled) == model.origin.metrics["test"]
    assert model.classes == ("no", "yes")
    found = model.predict(held_out)
    assert (found == np.array(held_out["label"].to_pylist())).mean() == model.origin.metrics["test"]
    assert model.predict_proba(held_out)[np.arange(len(found)), (found == "yes").astype(int)].min() >= 0.5


def test_the_network_is_ready_to_be_used(made: TrainedModel, folder: Path) -> None:
    model = load_model(folder)
    assert not model.network.training
    inputs = torch.randn(3, 7)
    assert torch.equal(model.network(inputs), made.network(inputs))
    assert re.fullmatch(
        r"TrainedModel\(mlp, 2 classes of 'label', accuracy: validation [\d.]+, test [\d.]+\)", repr(model)
    )


def test_numbers_of_another_unit_are_warned_of(made: TrainedModel) -> None:
    rows = in_hand.people().drop_columns(["label"])
    place = rows.schema.get_field_index("age")
    age = np.array(rows["age"].to_pylist(), dtype=np.float64)
    months = rows.set_column(place, "age", pa.array(1000 * age))
    with pytest.warns(
        UserWarning, match=r"column 'age' has in [\d,]+ of [\d,]+ rows numbers more than 10 standard dev"
    ) as told:
        made.predict(months)
    mean, spread = (
        float(number) for number in re.findall(r"part \(([\d.e+]+), spread ([\d.e+]+)\)", str(told[0].message))[0]
    )
    assert mean == pytest.approx(np.nanmean(age), rel=0.1)
    assert spread == pytest.approx(np.nanstd(age), rel=0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.predict(rows.set_column(place, "age", pa.array(2 * age)))  # unusual, and no more


def test_unseen_categories_are_warned_of(made: TrainedModel) -> None:
    rows = in_hand.people(3, cities=("Paris",)).drop_columns(["label"])
    with pytest.warns(UserWarning, match=r"column 'city' has categories in 3 of 3 rows that the training part had not"):
        made.predict(rows)
    assert made.examine(rows).metric is None
    with pytest.raises(
        DataError, match=r"rows must have labels to be scored, got none. Give a column 'label', or labels"
    ):
        made.score(rows)
    assert 0 <= made.score(rows, ["yes", "no", "no"]) <= 1


def test_rows_that_are_none_are_refused(made: TrainedModel) -> None:
    with pytest.raises(DataError, match=r"^the rows must hold rows, got none\. Give one at least\.$"):
        made.predict(in_hand.people(3).slice(0, 0))
    with pytest.raises(
        DataError, match=r"^the rows must have the column 'age', which the model was trained on\. Known"
    ):
        made.predict({})


def test_a_regression_is_in_the_units_of_its_labels(tmp_path: Path) -> None:
    table = in_hand.people()
    values = pa.array(np.array(table["age"]) * 1000.0 + 5e6)
    table = table.set_column(4, "label", values)
    task = in_hand.task_of(in_hand.written(tmp_path, table), metric="mae", tolerance=1000.0)
    model, result = in_hand.trained(task)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    held_out = table.take(pa.array(rows_held_out(task)))
    assert loaded.score(held_out) == result.metrics["test"]
    assert 5.0e6 < loaded.predict(held_out).mean() < 5.1e6
    with pytest.raises(DataError, match=r"probabilities are those of classes, and this model predicts values"):
        loaded.predict_proba(held_out)


@pytest.mark.parametrize("form", ["array", "Parquet"])
def test_texts_and_pictures(tmp_path: Path, form: str) -> None:
    rng = np.random.default_rng(0)
    label = np.arange(90) % 2
    if form == "array":
        images = (rng.random((90, 8, 8)) * 100 + label[:, None, None] * 100).astype(np.uint8)
        np.savez(tmp_path / "d.npz", x=images, y=label)
        data, model = {"source": str(tmp_path / "d.npz")}, {"name": "cnn", "channels": [2], "hidden": 4}
    else:
        words = [f"{'good' if k else 'bad'} {rng.choice(['film', 'plot'])}" for k in label]
        pq.write_table(pa.table({"text": words, "label": label}), tmp_path / "d.parquet")
        data, model = (
            {"source": str(tmp_path / "d.parquet")},
            {"name": "transformer", "width": 8, "heads": 2, "depth": 1},
        )
    task = in_hand.task_of("", data=data, model=model)
    made, result = in_hand.trained(task)
    made.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    rows = loaded.read(data["source"])
    found = loaded.examine(rows)
    assert found.values[rows_held_out(task)].tolist() == made.predict(rows)[rows_held_out(task)].tolist()
    assert found.metric is not None
    assert (found.values == label)[rows_held_out(task)].mean() == result.metrics["test"]


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_pruned_network_is_loaded_narrow(source: str, tmp_path: Path) -> None:
    model, result = in_hand.trained(in_hand.task_of(source), PRUNED)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.network[1].out_features == 8
    assert loaded.score(in_hand.people().take(pa.array(rows_held_out(model.origin.task)))) == result.metrics["test"]


def test_a_network_of_ones_own_is_built_by_its_code(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = in_hand.task_of(source, model={"name": "hand_networks:tied"})
    model, result = in_hand.trained(task)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.network.again.weight is loaded.network.inside.weight
    assert loaded.score(in_hand.people().take(pa.array(rows_held_out(task)))) == result.metrics["test"]
    monkeypatch.setattr(hand_networks, "ACTIVATION", [torch.tanh])
    with pytest.raises(
        ModelError, match=r"model 'hand_networks:tied' gives other outputs here than when it was saved"
    ) as e:
        load_model(tmp_path / "model")
    assert "Restore the code of 'hand_networks:tied', or train again." in str(e.value)


def test_of_a_network_that_takes_no_made_up_numbers_the_code_is_compared(tmp_path: Path) -> None:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(200, 3))  # standardised about as large
    np.savez(tmp_path / "d.npz", x=signs, label=np.arange(200) % 2)
    task = in_hand.task_of(str(tmp_path / "d.npz"), model={"name": "hand_networks:picky"})
    model, _ = in_hand.trained(task)
    model.save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["probe"] is None
    assert load_model(tmp_path / "model").classes == ("0", "1")
    _edit(tmp_path / "model", code={"hand_networks:picky": "0" * 64})
    with pytest.raises(
        ModelError, match=r"model 'hand_networks:picky' gives other outputs here than when it was saved"
    ):
        load_model(tmp_path / "model")


def test_code_that_is_not_here_is_told(source: str, tmp_path: Path, folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    about["task"]["model"] = {"name": "gone_module:make"}
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(
        ConfigError, match=r"model: model 'gone_module:make' cannot be imported: No module named 'gone_mod"
    ):
        load_model(folder)


def test_a_state_of_no_tensors_is_refused_before_the_training(source: str, tmp_path: Path) -> None:
    task = in_hand.task_of(source, model={"name": "hand_networks:noted"})
    with pytest.raises(
        ModelError, match=r"_extra_state of the network's state must be a tensor, got 'dict'. Keep it in a"
    ):
        check_can_be_saved(task, load(task, in_hand.PLACES), tmp_path / "model")


def test_weights_of_another_network_do_not_fit(folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    about["task"]["model"] = {"name": "mlp", "hidden": [4]}
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(
        ModelError, match=r"the weights do not fit model 'mlp' as it is built here: size mismatch for 3.weig"
    ):
        load_model(folder)


def test_a_run_without_a_model_is_none(source: str) -> None:
    task = in_hand.task_of(source)
    options = subsettune.train.RunOptions(device="cpu", num_threads=1)
    result = subsettune.train.run(task, Policy(phases=[{"passes": 1}]), 0, options=options)
    with pytest.raises(
        ConfigError, match=r"result must be a finished run that kept its model, got 'no model'. Train with"
    ):
        TrainedModel.of(result, task)
    assert set(result.metrics) == {"validation"}


def test_data_that_have_changed_since_the_run_are_told(tmp_path: Path) -> None:
    task = in_hand.task_of(in_hand.written(tmp_path, in_hand.people()))
    _, result = in_hand.trained(task)
    in_hand.written(tmp_path, in_hand.people(seed=1))
    with pytest.raises(
        DataError, match=r"the data are not those that the run was trained on: another task, or they have"
    ):
        TrainedModel.of(result, task)


def test_a_store_that_cannot_rename_has_the_table_of_files_last(made: TrainedModel, tmp_path: Path) -> None:
    store = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "models/a")
    assert not store.is_local
    (tmp_path / "models" / "a").mkdir(parents=True)
    made.save(store)
    made.save(store)
    assert torch.equal(load_model(store).network[1].weight, made.network[1].weight)
    assert load_model(tmp_path / "models" / "a").classes == made.classes


# --- what is no saved model -------------------------------------------------------------------------------------------


def _edit(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, **changes}))


def _cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "is no saved model: model.json is missing. Give a folder that `subsettune train"),
        (lambda f: (f / "model.json").write_text("{"), "model.json is damaged: "),
        (lambda f: _edit(f, kind="other"), "is no saved model: its model.json is of another kind. Give one of"),
        (lambda f: _edit(f, schema=2), "schema of model.json must be 1, got 2. Another version of subsettune wrote it"),
        (lambda f: _edit(f, files={}), "model.json is damaged: it does not list encoders.json. Copy the model anew"),
        (lambda f: _edit(f, seed="x"), "model.json or encoders.json is damaged: "),
        (lambda f: _edit(f, probe="x"), "model.json is damaged: it has no probe. Copy the model anew"),
        (
            lambda f: _cut(f, "weights.safetensors"),
            "weights.safetensors is damaged: its content is not what model.json",
        ),
        (lambda f: _cut(f, "encoders.json"), "encoders.json is damaged: its content is not what model.json says."),
        (
            lambda f: (f / "weights.safetensors").unlink(),
            "weights.safetensors is missing. Copy the model anew, or save",
        ),
    ],
)
def test_damage_is_told(folder: Path, spoil: Any, message: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert message in str(caught.value)


def test_a_model_replaces_another_and_nothing_else(made: TrainedModel, folder: Path, tmp_path: Path) -> None:
    before = (folder / "model.json").read_bytes()
    made.save(folder)
    assert (folder / "model.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["encoders.json", "model.json", "weights.safetensors"]
    (folder / "notes.txt").touch()
    with pytest.raises(
        ModelError, match=r"model holds what is no part of a saved model: notes\.txt\. Choose another fold"
    ):
        made.save(folder)
    with pytest.raises(ModelError, match=r"notes\.txt is a file\. Choose a folder for the model\."):
        made.save(folder / "notes.txt")


# --- a base install ---------------------------------------------------------------------------------------------------

ASK = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from subsettune import load_model
model = load_model(sys.argv[3])
from subsettune.cli import main
print(*model.predict({"age": [30, 70], "city": ["Lima", "Oslo"], "where": [[0.0, 0.0]] * 2, "account": [10**15] * 2}))
sys.exit(main(["predict", sys.argv[3], sys.argv[4], "--output", sys.argv[4] + ".csv"]))
"""


@pytest.mark.slow
def test_a_model_is_asked_with_torch_numpy_and_pyarrow_alone(folder: Path, tmp_path: Path, source: str) -> None:
    shutil.copy(source, tmp_path / "rows.parquet")
    arguments = [str(bare_packages(tmp_path / "bare")), str(ROOT), str(folder), str(tmp_path / "rows.parquet")]
    done = subprocess.run([sys.executable, "-S", "-c", ASK, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no yes\nWrote 200 predictions to {tmp_path}/rows.parquet.csv.\naccuracy: 0.")
