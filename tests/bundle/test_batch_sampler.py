"""The batch sampler of a bundle: its own data and no others; and what a bundle knows of its rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_bundle import Part, export, training_rows
from torch.utils.data import TensorDataset

from subsettune import Bundle
from subsettune.bundle.known import KnownData
from subsettune.bundle.rows import TrainingRows
from subsettune.data import DataPaths, load
from subsettune.errors import BundleError

LENGTH = 2 * 1257
LABELS = np.full(LENGTH, 7)  # of the rows that are held out, which nobody looks at
LABELS[Part.rows.numpy()] = Part.targets.numpy()
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    made, _ = export(tmp_path_factory.mktemp("bundle"))
    return dataclasses.replace(made, known=KnownData(classes=NAMES))


class Pictures:
    """As torchvision's data sets: the labels beside."""

    def __init__(self, labels: Any) -> None:
        self.targets = labels

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, row: int) -> Any:
        return torch.zeros(1), int(self.targets[row])


OTHERS = np.roll(LABELS, 2)
WORDS = np.array(NAMES)[LABELS]


@pytest.mark.parametrize(
    "data",
    [
        LENGTH,
        np.zeros((LENGTH, 3)),
        [0] * LENGTH,
        (np.zeros((LENGTH, 3)), LABELS),
        (np.zeros((LENGTH, 3)), WORDS.tolist()),
        Pictures(LABELS.tolist()),
        TensorDataset(torch.zeros(LENGTH, 1), torch.from_numpy(LABELS)),
        pd.DataFrame({"x": 0, "label": WORDS}),
        pa.table({"x": np.zeros(LENGTH), "label": WORDS}),
        {"label": WORDS, "x": np.zeros(LENGTH)},
    ],
    ids=lambda data: type(data).__name__,
)
def test_the_data_of_the_study_in_any_form(bundle: Bundle, data: Any) -> None:
    if isinstance(data, dict):
        data = pd.DataFrame(data).set_index(np.arange(LENGTH)[::-1])  # rows are places, whatever the index says
    task = dataclasses.replace(bundle.task, data=dataclasses.replace(bundle.task.data, label="label"))
    sampler = dataclasses.replace(bundle, task=task).batch_sampler(data)
    assert sampler.seed == bundle.seed
    sampler.on_switch(lambda switch: switch.done())
    sampler.lr_factor_at(0)
    assert "length" in sampler.compared
    assert ("labels" in sampler.compared) == (not isinstance(data, int | list | np.ndarray))
    rows = np.concatenate([index for index, _ in sampler.batches()])
    assert set(rows) <= set(range(0, LENGTH, 2))
    assert len(rows) == sum(bundle.visits)
    assert sampler.finish().spent <= bundle.policy.cost(bundle.facts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (1257, "data must be the 2,514 rows that the bundle was made for, got 1257. Give the data as the study read"),
        ("digits.npz", "data must be the data themselves, or how many rows they have, got \"the text 'digits.npz'\"."),
        ({"x": [0] * 9}, "data must be the 2,514 rows that the bundle was made for, got 9."),
        (object(), "data must be something with a length, got 'object'. Give the data, or how many rows they have."),
        (
            (np.zeros((LENGTH, 3)), OTHERS),
            "labels must be those that the bundle was made for, got 6 instead of 'zero' in",
        ),
        (Pictures(OTHERS.tolist()), "in row 0 (and 1,256 more that differ). These are other data, or in another order"),
        ((np.zeros((LENGTH, 3)), WORDS[::-1]), "labels must be those that the bundle was made for, got "),
        ((np.zeros((LENGTH, 3)), LABELS[:-1]), "labels must be 2,514 as the data have rows, got 2513."),
        ((np.zeros((LENGTH, 3)), np.zeros((LENGTH, 2))), "labels must be those that the bundle was made for, got [0.0"),
        ((np.zeros((LENGTH, 3)), object()), "labels must be an array of class names, numbers or values, got 'object'."),
    ],
)
def test_other_data_are_refused(bundle: Bundle, data: Any, message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        bundle.batch_sampler(data)


def test_labels_can_be_given_or_left_out(bundle: Bundle) -> None:
    bundle.batch_sampler(LENGTH, labels=torch.from_numpy(LABELS))
    bundle.batch_sampler(Pictures(OTHERS.tolist()), labels=False)
    with pytest.raises(BundleError, match="labels must be those"):
        bundle.batch_sampler(LENGTH, labels=OTHERS)


def test_what_a_host_trains_on_is_held_against_the_bundle_later_too(bundle: Bundle) -> None:
    sampler = bundle.batch_sampler(LENGTH)
    assert sampler.compared == ("length",)
    assert sampler.check((np.zeros((LENGTH, 3)), LABELS)) == ("length", "labels")
    with pytest.raises(BundleError, match="labels must be those"):
        sampler.check((np.zeros((LENGTH, 3)), OTHERS))


def test_visits_that_contradict_the_policy_are_told(bundle: Bundle) -> None:
    changed = dataclasses.replace(bundle, visits=(bundle.visits[0], bundle.visits[1] * 3))
    with pytest.raises(BundleError, match=r"^visits of phase 2 must be .* the bundle was changed by hand"):
        changed.batch_sampler(LENGTH)


def test_another_fingerprint_is_refused(bundle: Bundle) -> None:
    bundle.batch_sampler(LENGTH, fingerprint=bundle.fingerprint)
    with pytest.raises(BundleError, match=r"^the bundle was made for data with fingerprint 9f2c.*, these have 1234\."):
        bundle.batch_sampler(LENGTH, fingerprint="1234")


def test_a_batch_size_that_the_policy_did_not_foresee(bundle: Bundle) -> None:
    bundle.batch_sampler(LENGTH, bundle.recipe.batch_size)
    with pytest.raises(BundleError, match=r"^batch_size must be 64, as in the study, got 32\. The policy was shown to"):
        bundle.batch_sampler(LENGTH, 32)


def test_a_bundle_of_before_asks_for_its_rows(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"^rows must be those of the study, in its order, got .others.\."):
        bundle.batch_sampler(LENGTH, rows=range(1257))
    before = dataclasses.replace(bundle, rows=None)
    with pytest.raises(BundleError, match=r"^rows must be there once each, got one twice\."):
        before.batch_sampler(LENGTH, rows=[7] * 1257)
    with pytest.raises(BundleError, match=r"^rows must be whole numbers, got 'torch\.float32'\."):
        before.batch_sampler(LENGTH, rows=[0.5] * 1257)  # type: ignore[list-item]
    with pytest.raises(
        BundleError, match=r"^the bundle does not know the rows that it trains on: .* Give rows=\.\.\.,"
    ):
        before.batch_sampler(LENGTH)
    assert len(before.batch_sampler(LENGTH, rows=Part.rows)) == len(bundle.batch_sampler(LENGTH))
    with pytest.raises(BundleError, match=r"^rows must be 1,257 as in the study, got 5\."):
        before.batch_sampler(LENGTH, rows=range(5))
    with pytest.raises(BundleError, match=r"^rows must be between 0 and 2,511, the last row of the data, got 2512\."):
        before.batch_sampler(LENGTH - 2, rows=Part.rows)


def test_the_fingerprint_of_arrays_and_tables_is_that_of_the_file(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fakes.write_images(tmp_path / "images.npz")
    images = dataclasses.replace(bundle, task=fakes.image_task({"images": str(tmp_path / "images.npz")}))
    file = np.load(tmp_path / "images.npz")
    known = load(images.task, DataPaths()).fingerprint
    assert images.fingerprint_of((file["x"], file["y"])) == known
    assert images.fingerprint_of((file["x"], file["y"][::-1])) != known
    frame = pd.DataFrame({"a": np.arange(300.0), "b": np.arange(300) % 7, "label": ["no", "yes", "yes"] * 100})
    frame.to_parquet(tmp_path / "t.parquet")
    data = dataclasses.replace(bundle.task.data, source=str(tmp_path / "t.parquet"), label="label")
    table = dataclasses.replace(bundle, task=dataclasses.replace(bundle.task, data=data))
    assert table.fingerprint_of(frame) == load(table.task, DataPaths()).fingerprint


# --- the rows of a bundle ---------------------------------------------------------------------------------------------


def test_rows_are_written_and_read(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    assert made.rows == Bundle.load(tmp_path).rows == training_rows()
    assert hash(made.rows) == hash(training_rows())
    assert len(Bundle.load(tmp_path).batch_sampler(LENGTH)) == len(made.batch_sampler(LENGTH))
    assert (tmp_path / "rows.parquet").stat().st_size < 8192  # of 1,257 rows and labels


def test_rows_without_labels_are_those_of_a_function_that_nobody_knows_the_labels_of(bundle: Bundle) -> None:
    rows = dataclasses.replace(training_rows(), label=None)
    raw = rows.to_parquet()
    assert TrainingRows.from_parquet(None, raw) == rows  # type: ignore[arg-type]
    dataclasses.replace(bundle, rows=rows).batch_sampler(LENGTH, labels=OTHERS)  # nothing to compare with


@pytest.mark.parametrize("targets", [torch.rand(1257), torch.rand(1257, 3)])
def test_values_are_compared_as_closely_as_float32_tells(
    bundle: Bundle, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Part, "targets", targets)
    known = dataclasses.replace(bundle, rows=training_rows())
    labels = np.zeros((LENGTH, *targets.shape[1:]))
    labels[Part.rows.numpy()] = targets.double().numpy() * (1 + 1e-7)
    known.batch_sampler(LENGTH, labels=labels)
    labels[2] *= 1.001
    with pytest.raises(BundleError, match=r"in row 2 \(and 0 more that differ\)"):
        known.batch_sampler(LENGTH, labels=labels)


def _edited(folder: Path, table: pa.Table, **about: Any) -> None:
    """Somebody has edited the rows, and the sum of them, too."""
    meta = {"schema": 1, "num_source": LENGTH, **about}
    pq.write_table(table.replace_schema_metadata({b"subsettune": json.dumps(meta).encode()}), folder / "rows.parquet")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"]["rows.parquet"]["sha256"] = hashlib.sha256((folder / "rows.parquet").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))


ROWS = np.arange(0, LENGTH, 2)


@pytest.mark.parametrize(
    ("table", "about", "message"),
    [
        (pa.table({"index": np.r_[ROWS[:-1], 0]}), {}, "rows of the training part must be there once each, got one"),
        (pa.table({"index": ROWS[:-1]}), {}, "rows of the training part must be those of 1,257 examples, as in the"),
        (pa.table({"index": ROWS}), {"num_source": 100}, "rows of the training part must be between 0 and 99."),
        (pa.table({"index": ROWS + 1}), {}, "phase 1 of the subset table must name rows of the training part alone."),
        (pa.table({"index": ROWS.astype(np.int32)}), {}, "rows.parquet is damaged: its columns are not those of rows"),
        (pa.table({"index": ROWS, "x": ROWS}), {}, "rows.parquet is damaged: its columns are not those of rows"),
        (pa.table({"index": ROWS}), {"num_source": None}, "is damaged: it does not say how many rows the source has"),
        (pa.table({"index": ROWS}), {"schema": 2}, "schema of rows.parquet must be 1, got 2. Another version of"),
    ],
)
def test_rows_that_somebody_edited_are_refused(tmp_path: Path, table: pa.Table, about: Any, message: str) -> None:
    export(tmp_path)
    _edited(tmp_path, table, **about)
    with pytest.raises(BundleError, match=re.escape(message)):
        Bundle.load(tmp_path)


def test_rows_that_are_gone_or_damaged_are_told(tmp_path: Path) -> None:
    export(tmp_path)
    raw = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "rows.parquet").write_bytes(raw[:-10])
    with pytest.raises(BundleError, match=r"rows.parquet is damaged: its content is not what bundle.json says\."):
        Bundle.load(tmp_path)
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(BundleError, match=r"rows.parquet is missing\. Copy the bundle anew"):
        Bundle.load(tmp_path)
