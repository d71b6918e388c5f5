"""What a study is trained and judged on, as text of 80 columns."""

from __future__ import annotations

from typing import Any

from subsettune.report.data_tables import MOST_CLASSES, MOST_COLUMNS, columns_table, data_blocks, warning_blocks
from subsettune.report.plan_tables import plan_text
from subsettune.report.render import render


def column(name: str, role: str = "feature", **known: Any) -> dict[str, Any]:
    plain = {"kind": "double", "width": 1, "distinct": None, "least": None, "most": None, "missing": 0, "why": ""}
    return {"name": name, "role": role, **plain, "warnings": [], **known}


WHY = "it is the index that pandas wrote, the numbers or names of the rows. To use it all the same, name it."
DATA: dict[str, Any] = {
    "example": "7 numbers",
    "source": {
        "files": ["train.parquet"],
        "test_files": ["test.parquet"],
        "left_alone": ["train_small.parquet"],
        "columns": [
            column("age", distinct=73, least=17.0, most=90.0),
            column("share", distinct=1000, least=-0.12345, most=1e20, missing=12),
            column("size", "categories", width=4, distinct=3, missing=1234),
            column("vector", width=128),
            column("when", kind="date32[day]", width=7, distinct=60, least=1704067200.0, most=1709164800.0),
            column("patient", "split", kind="string"),
            column("id", distinct=4000, least=0.0, most=3999.0, warnings=["column 'id' ..."]),
            column("label", "label", distinct=2),
            column("row", "ignored", width=0, why=WHY),
            column("a_name_that_goes_on_and_on_for_ever", "excluded", width=0, why="data.exclude names it"),
        ],
    },
    "sizes": {"train": 3000, "validation": 400, "test": 600},
    "split": "Test part: the official test set (test.parquet).",
    "classes": {
        "no": {"train": 2000, "validation": 300, "test": 400},
        "yes": {"train": 1000, "validation": 100, "test": 200},
    },
    "shared": {"validation, train": 3, "test, train": 0, "test, validation": 0},
}


def test_data_as_text() -> None:
    text = render(data_blocks(DATA))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert text.startswith(
        "Test part: the official test set (test.parquet).\n"
        "Read: train.parquet; for the test part test.parquet. Not read:\ntrain_small.parquet.\n"
    )
    assert lines["age"].split() == ["age", "number", "73", "distinct,", "17", "to", "90", "-"]
    assert "1,000 distinct, -0.1235 to 1e+20            12  missing ones filled" in lines["share"]
    assert lines["when"].split() == ["when", "7", "numbers", "60", "distinct,", "2024-01-01", "to", "2024-02-29", "-"]
    assert lines["patient"].split() == ["patient", "split", "-", "-"]
    assert "4 categories  3 distinct" in lines["size"]
    assert lines["size"].endswith("1,234")
    assert "128 numbers" in lines["vector"]
    assert lines["id"].endswith("look at it: see")
    assert lines["row"].split()[:3] == ["row", "not", "read"]
    assert "a_name_that_goes_on_and_on.." in text
    assert [line.split() for line in text.splitlines()[-4:]] == [
        ["no", "2,000", "300", "400"],
        ["yes", "1,000", "100", "200"],
        ["all", "3,000", "400", "600"],
        ["of", "them", "in", "training", "too", "3", "0"],
    ]


def test_columns_that_say_nothing_are_left_out() -> None:
    found = columns_table([column("a", distinct=3, least=0.0, most=2.0), column("label", "label", distinct=2)])
    assert [one.title for one in found.columns] == ["column", "read as", "values"]
    assert found.rows == (("a", "number", "3 distinct, 0 to 2"), ("label", "label", "2 distinct"))


def test_of_many_columns_and_classes_the_first_are_shown_and_the_suspicious_ones() -> None:
    columns = [column(f"c{i}") for i in range(100)]
    columns[70]["warnings"] = ["look"]
    columns[80] |= {"role": "ignored", "why": WHY}
    columns[90]["role"] = "label"
    table = columns_table(columns)
    assert [row[0] for row in table.rows] == [*(f"c{i}" for i in range(MOST_COLUMNS)), "c70", "c80", "c90"]
    assert table.note == "And 67 more columns: --json lists all."
    classes = {f"k{i}": {"train": 1, "validation": 1, "test": 1} for i in range(50)}
    text = render(data_blocks({**DATA, "classes": classes}))
    assert f"k{MOST_CLASSES - 1} " in text
    assert f"k{MOST_CLASSES} " not in text
    assert "And 30 more classes: --json lists all." in text


def test_many_shards_are_told_by_the_first_and_last() -> None:
    files = [f"train-{i:05d}-of-00012.parquet" for i in range(12)]
    text = render(data_blocks({"source": {"files": files}}), 200)
    assert text == "Read: train-00000-of-00012.parquet to train-00011-of-00012.parquet (12 files).\n"


def test_what_is_not_known_is_left_out() -> None:
    assert data_blocks({}) == []
    assert data_blocks({"split": "All.", "source": {}}) == ["All."]
    assert warning_blocks([]) == []


def test_a_plan_ends_with_what_to_look_at() -> None:
    text = plan_text({"data": DATA, "warnings": ["Column 'id' is one.", "Column 'row' is not read."]})
    assert text.endswith(
        "Look at the data before you believe a number:\n- Column 'id' is one.\n- Column 'row' is not read.\n"
    )
    assert text.index("Test part: the official") < text.index("Time: unknown")
