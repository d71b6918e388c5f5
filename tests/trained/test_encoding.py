"""How rows become inputs, taken from a task's data: exactly as training has it, or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import in_hand
import numpy as np
import pyarrow as pa
import pytest
import torch

from subsettune import Task, config
from subsettune.data import TaskData, load
from subsettune.data.columns import ColumnFacts
from subsettune.errors import DataError
from subsettune.trained.encoding import Encoding
from subsettune.trained.table import Table


def loaded(task: Task) -> TaskData:
    return load(task, in_hand.PLACES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return in_hand.written(tmp_path_factory.mktemp("people"), in_hand.people(cities=("Lima", "Oslo", "Rome", "Bonn")))


def test_every_row_comes_out_as_in_training(source: str) -> None:
    task = in_hand.task_of(source)
    data = loaded(task)
    made = Encoding.of(task, data)
    part, warnings = made.part(made.read(source))
    assert warnings == ()
    index = torch.arange(len(part))
    assert torch.equal(part.batch(index)[0], data.train.encoder(data.train.inputs))


def test_its_json_form_is_itself(source: str) -> None:
    task = in_hand.task_of(source)
    made = Encoding.of(task, loaded(task))
    assert config.build(Encoding, config.to_plain(made)) == made
    assert isinstance(made.inputs, Table)
    account = made.inputs.columns[-1]
    assert (account.name, account.type) == ("account", "int64")
    assert abs(account.shift[0] - 10**15) < 1000


def test_columns_in_the_order_that_the_task_names_them(source: str) -> None:
    task = in_hand.task_of("", data={"source": source, "features": ["city", "age"]})
    made = Encoding.of(task, loaded(task))
    assert isinstance(made.inputs, Table)
    assert [column.name for column in made.inputs.columns] == ["city", "age"]


def test_categories_that_only_other_parts_have_are_unseen(tmp_path: Path) -> None:
    table = in_hand.people()
    cities = table["city"].to_pylist()
    task = in_hand.task_of(str(tmp_path / "people.parquet"))
    rows = loaded(in_hand.task_of(in_hand.written(tmp_path, table))).test.rows.tolist()
    for row in rows[:3]:
        cities[row] = "Rare"
    in_hand.written(tmp_path, table.set_column(1, "city", pa.array(cities)))
    made = Encoding.of(task, loaded(task))
    assert isinstance(made.inputs, Table)
    assert made.inputs.columns[1].categories == ("Lima", "Oslo", "Rome")
    _, (said,) = made.part(made.read(task.data.source))
    assert said.startswith("column 'city' has categories in 3 of 200 rows that the training part had not: 'Rare'.")


def test_a_way_of_reading_that_it_does_not_know_is_refused(source: str) -> None:
    """As a reader would that makes other numbers of a file, or more of them, than this one."""
    task = in_hand.task_of(source)
    data = loaded(task)
    twisted = dataclasses.replace(data.train, inputs=data.train.inputs.flip(0))
    with pytest.raises(
        DataError, match=r"cannot be kept for predictions: the first rows of .* come out otherwise than in"
    ):
        Encoding.of(task, dataclasses.replace(data, train=twisted))
    with pytest.raises(
        DataError, match=r"an example is \(9,\), and would be \(8,\)\. Save the weights alone: give --save"
    ):
        Encoding.of(task, dataclasses.replace(data, input_shape=(9,)))
    with pytest.raises(
        DataError, match=r"rows of files like people\.feather cannot be read for them\. Save the weights al"
    ):
        Encoding.of(in_hand.task_of("./people.feather"), data)
    assert data.facts is not None
    fewer = dataclasses.replace(data.facts, columns=data.facts.columns[1:])
    with pytest.raises(DataError, match=r"they are 5 numbers, of which 4 are in known columns"):
        Encoding.of(task, dataclasses.replace(data, facts=fewer))
    nothing = dataclasses.replace(data.facts, columns=(ColumnFacts(name="label", role="label"),))
    with pytest.raises(DataError, match=r"nothing tells which columns they are"):
        Encoding.of(task, dataclasses.replace(data, facts=nothing))


def test_classes_are_numbers_where_the_data_have_numbers(tmp_path: Path) -> None:
    table = in_hand.people()
    number = np.array(table["label"].to_pylist()) == "yes"
    for values, expected in (
        (number.astype(int), (True, False)),
        (number, (True, True)),
        (np.where(number, "1", "0"), (False, False)),
        (np.where(number, 1, -1), (True, False)),
    ):
        task = in_hand.task_of(in_hand.written(tmp_path, table.set_column(4, "label", pa.array(values))))
        outputs = Encoding.of(task, loaded(task)).outputs
        assert (outputs.are_numbers, outputs.are_booleans) == expected
