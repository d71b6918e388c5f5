"""Tables of runs: what is kept of the test examples comes back, old tables are read, damaged ones are not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from facts import made_up_facts
from places import ROOT

from subsettune.errors import ConfigError
from subsettune.policy import conventional
from subsettune.storage import parsed
from subsettune.study.results.records import RunRecord, from_table, to_table


def record(**changes: Any) -> RunRecord:
    policy = conventional(made_up_facts())
    plain = {"name": "a", "role": "verification", "policy": policy, "seed": 0, "cause": "finished", "cost_flops": 1}
    return RunRecord(**{**plain, **changes})


def through_a_file(rows: list[RunRecord]) -> pa.Table:
    buffer = io.BytesIO()
    pq.write_table(to_table(rows), buffer)
    return parsed(buffer.getvalue())


def test_bits_come_back_from_a_file_as_binary_columns() -> None:
    bits = np.packbits(np.random.default_rng(0).random(539) < 0.9).tobytes()
    rows = [record(num_test=539, test_correct=bits), record(num_test=2, test_errors=b"\0" * 8), record()]
    table = through_a_file(rows)
    assert table.schema.field("test_correct").type == pa.binary()
    assert table["test_correct"].to_pylist() == [bits, None, None]
    assert from_table(table) == tuple(rows)


def test_a_table_of_version_0_1_is_read() -> None:
    old = parsed((ROOT / "tests" / "fixtures" / "v0_1" / "study" / "verification.parquet").read_bytes())
    assert not {"num_test", "test_correct", "test_errors"} & set(old.column_names)
    rows = from_table(old)
    assert len(rows) > 0
    assert {(row.num_test, row.test_correct, row.test_errors) for row in rows} == {(0, None, None)}
    assert from_table(through_a_file(list(rows))) == rows


@pytest.mark.parametrize("column", ["test_metric", "seed", "policy"])
def test_a_table_that_lacks_another_column_is_damaged(column: str) -> None:
    with pytest.raises(KeyError, match=column):
        from_table(through_a_file([record()]).drop_columns([column]))


def test_bits_that_are_not_as_many_as_the_examples_are_refused() -> None:
    with pytest.raises(ConfigError, match="test_correct must be 2 bytes long, for 9 test examples, got '1 bytes'"):
        record(num_test=9, test_correct=b"a")
    with pytest.raises(ConfigError, match="test_errors must be 36 bytes long, for 9 test examples, got '35 bytes'"):
        record(num_test=9, test_errors=b"a" * 35)
