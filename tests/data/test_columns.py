"""Columns that are no features: what is left out unasked, what is warned of, and what a user may say about it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from subsettune.data import DataPaths, TaskData, load, sources
from subsettune.data.columns import ColumnFacts, SourceFacts
from subsettune.errors import ConfigError, DataError
from subsettune.policy import conventional
from subsettune.task import Data, Model, Recipe, Split, Task
from subsettune.train.loop import RunOptions, facts, run

N = 600
RNG = np.random.default_rng(0)
NOISE = {"a": RNG.normal(size=N), "b": RNG.normal(size=N)}
SORTED = np.sort(RNG.integers(0, 3, N))  # the classes 0, 1, 2, as a file has them that was written class by class
WORDS = np.array(["cat", "dog", "emu"])
USE = "To use it all the same, name it in data.features with the others."
INDEX = f"it is the index that pandas wrote, the numbers or names of the rows. {USE}"
COPY = f"it is a second copy of the label. {USE}"
LABEL_ALONE = ("a", "b", "label")


def table(metadata: dict[str, Any] | None = None, **columns: Any) -> pa.Table:
    made = pa.table({**NOISE, "label": SORTED, **columns})
    return made if metadata is None else made.replace_schema_metadata({"pandas": json.dumps(metadata)})


def task_of(path: Path, metric: str = "accuracy", **data: Any) -> Task:
    return Task(
        data=Data(source=str(path), **data),
        split=Split(validation=0.2),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, momentum=0.9, batch_size=32, epochs=20),
        metric=metric,
        tolerance=0.01,
    )


def write(path: Path, made: pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path)
    return path


def load_table(tmp_path: Path, made: pa.Table, metric: str = "accuracy", **data: Any) -> TaskData:
    path = write(tmp_path / "data.parquet", made)
    return load(task_of(path, metric, **data), DataPaths(cache=str(tmp_path / "cache")))


def told(data: TaskData) -> SourceFacts:
    assert data.facts is not None
    return data.facts


def about(data: TaskData, name: str) -> ColumnFacts:
    (found,) = (column for column in told(data).columns if column.name == name)
    return found


# --- left out unasked -------------------------------------------------------------------------------------------------

IGNORED: dict[str, tuple[pa.Table, str, str]] = {
    "index_without_a_name": (table(__index_level_0__=np.arange(N)), "__index_level_0__", INDEX),
    "index_that_the_metadata_name": (table({"index_columns": ["row"]}, row=np.arange(N)), "row", INDEX),
    "index_of_texts": (
        table({"index_columns": ["who"]}, who=[f"u{i}" for i in range(N)]),  # as a column: too many categories
        "who",
        INDEX,
    ),
    "index_of_dates": (
        table(
            {"index_columns": ["day"]},
            day=[datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(N)],  # as a column: refused
        ),
        "day",
        INDEX,
    ),
    "index_of_a_csv_file": (table(**{"Unnamed: 0": RNG.permutation(N)}), "Unnamed: 0", INDEX),
    "index_of_tables_one_below_the_other": (
        table(**{"Unnamed: 0": np.arange(N) % (N // 3)}),
        "Unnamed: 0",
        INDEX,
    ),
    "label_again": (table(target=SORTED), "target", COPY),
    "label_as_other_numbers": (table(target=np.array([7, 1, 4])[SORTED]), "target", COPY),
    "label_as_floats": (table(target=SORTED / 2), "target", COPY),
    "label_as_text": (table(name=WORDS[SORTED]), "name", COPY),
    "label_as_dictionary": (table(name=pa.array(WORDS[SORTED]).dictionary_encode()), "name", COPY),
}


@pytest.mark.parametrize("case", IGNORED)
def test_what_is_surely_no_feature_is_left_out_and_told(tmp_path: Path, case: str) -> None:
    made, name, why = IGNORED[case]
    data = load_table(tmp_path, made)
    assert data.input_shape == (2,)
    assert (about(data, name).role, about(data, name).width, about(data, name).why) == ("ignored", 0, why)
    assert f"column {name!r} is not read: {why}" in told(data).sentences
    plain = load_table(tmp_path / "plain", table())
    assert data.train.inputs.equal(plain.train.inputs)


def test_noise_with_an_index_is_learnt_no_better_than_noise(tmp_path: Path) -> None:
    """Rows lie sorted by class: with the index as a feature the test accuracy was 1.0, where a guess has 0.37."""
    path = write(tmp_path / "data.parquet", table(__index_level_0__=np.arange(N)))
    task, places = task_of(path), DataPaths(cache=str(tmp_path / "cache"))
    result = run(task, conventional(facts(task, places)), 0, options=RunOptions(splits=("test",), places=places))
    guess = np.bincount(SORTED).max() / N
    assert result.metrics["test"] < guess + 3 * np.sqrt(guess * (1 - guess) / 120)


def test_a_label_as_text_has_a_copy_as_number(tmp_path: Path) -> None:
    data = load_table(tmp_path, pa.table({**NOISE, "label": WORDS[SORTED], "code": SORTED}))
    assert (data.input_shape, data.class_names, about(data, "code").role) == ((2,), tuple(WORDS), "ignored")


def test_values_of_a_regression_have_a_copy_too(tmp_path: Path) -> None:
    label = NOISE["a"] + NOISE["b"]
    data = load_table(tmp_path, pa.table({**NOISE, "label": label, "again": label, "near": label + 1}), "mse")
    assert (about(data, "again").role, about(data, "near").role, data.input_shape) == ("ignored", "feature", (3,))


ALMOST: dict[str, Any] = {
    "one_row_differs": np.where(np.arange(N) == 0, 2, SORTED),
    "fewer_classes": SORTED // 2,
    "one_is_missing": pa.array(np.where(np.arange(N) == 0, None, SORTED).tolist(), pa.int64()),
    "more_classes": SORTED * 2 + np.arange(N) % 2,
}


def test_columns_that_differ_in_every_row_are_no_copies_of_labels_that_do(tmp_path: Path) -> None:
    """They stand one for one for each other, and that means nothing."""
    with pytest.raises(DataError, match=r"^labels of a classification must be whole numbers, got "):
        load_table(tmp_path, pa.table({**NOISE, "label": RNG.normal(size=N)}))
    with pytest.raises(DataError, match=r"must have at least 3 examples, one for each part"):
        load_table(tmp_path / "b", pa.table({**NOISE, "label": RNG.permutation(N)}))


@pytest.mark.parametrize("case", [case for case in ALMOST if case != "one_is_missing"])
def test_what_is_almost_a_copy_stays(tmp_path: Path, case: str) -> None:
    data = load_table(tmp_path, table(target=ALMOST[case]))
    assert (about(data, "target").role, data.input_shape) == ("feature", (3,))


def test_a_missing_value_makes_no_copy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got NaN, infinity or nothing in column 'target', row 0\."):
        load_table(tmp_path, table(target=ALMOST["one_is_missing"]))


def test_an_index_that_is_the_label_is_the_label(tmp_path: Path) -> None:
    data = load_table(tmp_path, table({"index_columns": ["label"]}))
    assert about(data, "label").role == "label"
    assert told(data).sentences == ()


def test_an_unnamed_column_of_measurements_stays(tmp_path: Path) -> None:
    data = load_table(tmp_path, table(**{"Unnamed: 2": RNG.normal(size=N)}))
    assert about(data, "Unnamed: 2").role == "feature"


def test_an_unnamed_column_of_whole_numbers_that_do_not_count_is_told(tmp_path: Path) -> None:
    """The index of a sample with repetitions, perhaps."""
    data = load_table(tmp_path, table(**{"Unnamed: 0": RNG.integers(0, N, N)}))
    assert about(data, "Unnamed: 0").role == "feature"
    assert told(data).sentences == (
        "column 'Unnamed: 0' has no name in its file, as the index that pandas writes has none, and is read as a "
        'number. If it is no feature, leave it out: data.exclude: ["Unnamed: 0"].',
    )


def test_whole_numbers_of_float16_are_looked_at(tmp_path: Path) -> None:
    made = table(few=(np.arange(N) % 60).astype(np.float16) * 700)
    assert about(load_table(tmp_path, made), "few").most == float(np.float16(59 * 700))


def test_a_range_index_is_no_column(tmp_path: Path) -> None:
    """pandas writes a plain range as a description, without a column."""
    data = load_table(tmp_path, table({"index_columns": [{"kind": "range", "start": 0, "stop": N, "step": 1}]}))
    assert (data.input_shape, told(data).sentences) == ((2,), ())


@pytest.mark.parametrize("text", [b"no JSON", b'{"index_columns": 3}', b"[]"])
def test_metadata_that_are_not_those_of_pandas(tmp_path: Path, text: bytes) -> None:
    assert load_table(tmp_path, table().replace_schema_metadata({b"pandas": text})).input_shape == (2,)


def test_an_index_in_the_training_file_alone(tmp_path: Path) -> None:
    write(tmp_path / "d/train.parquet", table(__index_level_0__=np.arange(N)))
    write(tmp_path / "d/test.parquet", table())
    assert load(task_of(tmp_path / "d"), DataPaths(cache=str(tmp_path / "cache"))).input_shape == (2,)


def test_row_numbers_that_begin_again_in_every_file(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / f"d/{part}.parquet", table(**{"Unnamed: 0": np.arange(N)}))
    data = load(task_of(tmp_path / "d"), DataPaths(cache=str(tmp_path / "cache")))
    assert about(data, "Unnamed: 0").role == "ignored"


def test_nothing_left_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_table(tmp_path, pa.table({"label": SORTED, "__index_level_0__": np.arange(N)}))
    assert str(caught.value) == (
        f"{tmp_path}/data.parquet has no column besides the label 'label', data.exclude and the index of pandas, "
        "__index_level_0__. Add the features."
    )
    with pytest.raises(DataError) as caught:
        load_table(tmp_path / "b", pa.table({"label": SORTED, "target": SORTED}))
    assert str(caught.value) == f"{tmp_path}/b/data.parquet has no feature: column 'target' is not read, as {COPY}"


# --- what a user says -------------------------------------------------------------------------------------------------


def test_a_column_that_features_name_is_used_with_a_warning(tmp_path: Path) -> None:
    made = table({"index_columns": ["row"]}, row=np.arange(N), target=SORTED)
    data = load_table(tmp_path, made, features=["a", "row", "target"])
    assert data.input_shape == (3,)
    assert about(data, "row").warnings[0] == (
        "column 'row' is read as data.features names it, but it is the index that pandas wrote, the numbers or names "
        "of the rows."
    )
    assert about(data, "target").warnings[0] == (
        "column 'target' is read as data.features names it, but it is a second copy of the label."
    )
    assert (about(data, "b").role, about(data, "b").why) == ("excluded", "data.features does not name it")


def test_a_column_that_categorical_names_is_used_with_a_warning(tmp_path: Path) -> None:
    data = load_table(tmp_path, table(target=SORTED), categorical=["target"])
    assert data.input_shape == (2 + 3,)
    assert about(data, "target").warnings[0] == (
        "column 'target' is read as data.categorical names it, but it is a second copy of the label."
    )


def test_excluded_columns_are_no_features(tmp_path: Path) -> None:
    when = pa.array(np.arange(N), pa.timestamp("s"))
    data = load_table(tmp_path, table(when=when, who=[f"u{i}" for i in range(N)]), exclude=["when", "who"])
    assert data.input_shape == (2,)
    assert (about(data, "when").role, about(data, "when").why) == ("excluded", "data.exclude names it")
    assert told(data).sentences == ()  # it was asked for


def test_an_excluded_image_or_text_is_no_input(tmp_path: Path) -> None:
    made = table(text=["so it goes"] * N, image=[b"no image"] * N)
    assert load_table(tmp_path, made, exclude=["text", "image"]).input_shape == (2,)


EXCLUDED: list[tuple[dict[str, Any], str]] = [
    ({"exclude": ["z"]}, "{path} has no column 'z'. Its columns: a, b, label. Set data.exclude."),
    (
        {"exclude": ["a", "b"]},
        "{path} has no column besides the label 'label' and those of data.exclude. Add the features.",
    ),
]


@pytest.mark.parametrize(("data", "message"), EXCLUDED)
def test_what_cannot_be_excluded(tmp_path: Path, data: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_table(tmp_path, table(), **data)
    assert str(caught.value) == message.format(path=tmp_path / "data.parquet")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"exclude": ["label"]},
            "exclude: exclude must be other columns than label, got 'label'. Remove it from one of them.",
        ),
        (
            {"exclude": ["v"], "embeddings": "v"},
            "exclude: exclude must be other columns than embeddings, got 'v'. Remove it from one of them.",
        ),
        (
            {"exclude": ["t"], "text": "t"},
            "exclude: exclude must be other columns than text, got 't'. Remove it from one of them.",
        ),
        (
            {"exclude": ["c"], "categorical": ["c"]},
            "exclude: exclude must be other columns than categorical, got 'c'. Remove it from one of them.",
        ),
        ({"features": []}, "features: features must be different columns, one at least, got []. Mend the list."),
        (
            {"features": ["a", "b", "a"]},
            "features: features must be different columns, one at least, got ['a', 'b', 'a']. Mend the list.",
        ),
        (
            {"exclude": ["c"], "features": ["a"]},
            "exclude: exclude must be left out beside features, which names all inputs. Remove one of them.",
        ),
    ],
)
def test_columns_that_have_a_part_to_play(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Data(source="a.parquet", **data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digits", "data.exclude means nothing to 'digits': its input and label are known. Remove the key."),
        ("{}/a.npz", "data.exclude means nothing to .npz files, of which one array is the input. Remove it."),
        (
            "{}/a.tsv",
            "data.exclude means nothing to .tsv files: texts are their input. Write Parquet instead.",
        ),
    ],
)
def test_sources_without_columns_to_exclude(tmp_path: Path, source: str, message: str) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 2)), y=np.arange(9) % 2)
    (tmp_path / "a.tsv").write_text("text\tlabel\nx\t0\n")
    with pytest.raises(DataError) as caught:
        load(task_of(Path(source.format(tmp_path)), exclude=["a"]), DataPaths(cache=str(tmp_path / "cache")))
    assert str(caught.value) == message


def test_what_is_not_excluded_changes_no_key() -> None:
    plain, given = Data(source="a.parquet"), Data(source="a.parquet", exclude=["id"])
    assert "exclude" not in plain.to_mapping()
    assert given.to_mapping()["exclude"] == ["id"]


# --- warned of --------------------------------------------------------------------------------------------------------

IN_ORDER = "holds another whole number in each row, in order, as row numbers and ids do."
TIME = "looks like a time in {} since 1970. Convert it to what matters: hour, weekday, age."
DAY = "looks like a date written as 20240531. Convert it to what matters: month, weekday, age."
DATES = "holds dates as texts, and each is read as a category of its own. Set data.date_formats: {{when: '{}'}}."
NUMBERS = (
    "holds numbers written as texts, and each is read as a category of its own. Convert it to numbers, or name it in "
    "data.categorical."
)
JANUARY = RNG.integers(1, 32, N)
SECONDS = 1_600_000_000 + RNG.integers(0, 10**8, N)
SUSPICIOUS: dict[str, tuple[str, Any, str]] = {
    "row_number": ("n", RNG.permutation(N), IN_ORDER.replace(" in order,", "")),
    "row_number_in_order": ("n", np.arange(N), IN_ORDER),
    "row_number_as_float": ("n", np.arange(N) * 1.0, IN_ORDER),
    "group": ("n", np.arange(N) // 4, "grows from row to row, as the numbers of groups and times do."),
    "customer": (
        "customer_id",
        RNG.integers(0, 99, N),
        "is called an id, and is read as a number. If it stands for names, put it into data.categorical.",
    ),
    "hash": ("h", RNG.integers(-(2**62), 2**62, N), IN_ORDER.replace(" in order,", "")),
    "long_id": ("account_id", RNG.permutation(10**7)[:N], IN_ORDER.replace(" in order,", "")),
    "constant": ("c", np.full(N, 7), "holds one value only."),
    "nothing": ("c", pa.nulls(N, pa.string()), "holds nothing: every value is missing."),
    "constant_text": ("c", ["x"] * N, "holds one value only."),
    "seconds": ("when", SECONDS, TIME.format("seconds")),
    "seconds_as_float": ("when", SECONDS + 0.25, TIME.format("seconds")),
    "milliseconds": ("when", SECONDS * 10**3, TIME.format("milliseconds")),
    "microseconds": ("when", SECONDS * 10**6, TIME.format("microseconds")),
    "nanoseconds": ("when", SECONDS * 10**9, TIME.format("nanoseconds")),
    "days": ("when", 20240100 + JANUARY, DAY),
    "iso_dates": ("when", [f"2024-01-{day:02d}" for day in JANUARY], DATES.format("ISO")),
    "iso_times": ("when", [f"2024-01-{day:02d}T10:00:00" for day in JANUARY], DATES.format("ISO")),
    "european_dates": ("when", [f"{day}.1.2024" for day in JANUARY], DATES.format("%d.%m.%Y")),
    "numbers_as_texts": ("n", [f"{day / 4:.2f}" for day in JANUARY], NUMBERS),
}


@pytest.mark.parametrize("case", SUSPICIOUS)
def test_what_may_be_no_feature_is_read_with_a_warning(tmp_path: Path, case: str) -> None:
    name, values, words = SUSPICIOUS[case]
    data = load_table(tmp_path, table(**{name: values}))
    assert about(data, name).role in ("feature", "categories")
    assert about(data, name).warnings[0] == (
        f"column {name!r} {words} If it is no feature, leave it out: data.exclude: [{name}]."
    )
    named = load_table(tmp_path / "named", table(**{name: values}), features=["a", name])
    assert about(named, name).warnings[0] == (
        f"column {name!r} {words} If it is no feature, remove it from data.features."
    )


INNOCENT: dict[str, Any] = {
    "measurements": RNG.normal(size=N),
    "paid": RNG.integers(0, 9, N),
    "counts": RNG.integers(0, 99, N),
    "years": RNG.integers(1990, 2024, N),
    "prices_that_all_differ": RNG.permutation(10**6)[:N],
    "millions": RNG.integers(0, 10**9, N) // 1000 * 1000,
    "zip_codes_as_texts": [f"K{i % 30}" for i in range(N)],
    "almost_days": 20240100 + RNG.integers(1, 99, N),
    "flags": RNG.integers(0, 2, N) > 0,
    "grid": RNG.integers(0, 5, N) / 4,
}


@pytest.mark.parametrize("case", INNOCENT)
def test_ordinary_columns_are_no_cause_for_alarm(tmp_path: Path, case: str) -> None:
    assert told(load_table(tmp_path, table(**{case: INNOCENT[case]}))).sentences == ()


def test_numbers_that_were_categorical_in_pandas_are_asked_about(tmp_path: Path) -> None:
    """Parquet gives them back as whole numbers; texts stay categories, and two numbers are one column either way."""
    told_by_pandas = [
        {"name": name, "field_name": name, "pandas_type": "categorical", "numpy_type": "int8"}
        for name in ("zone", "flag", "size")
    ]
    columns = {"zone": RNG.integers(0, 9, N), "flag": RNG.integers(0, 2, N), "size": ["SML"[i % 3] for i in range(N)]}
    made = table({"index_columns": [], "columns": told_by_pandas}, **columns)
    assert told(load_table(tmp_path, made)).sentences == (
        "column 'zone' was categorical in pandas, and is read as a number. If it stands for names, put it into "
        "data.categorical. If it is no feature, leave it out: data.exclude: [zone].",
    )
    assert told(load_table(tmp_path / "marked", made, categorical=["zone"])).sentences == ()


def test_categories_that_are_marked_are_meant(tmp_path: Path) -> None:
    made = table(store_id=RNG.integers(0, 9, N), day=20240100 + JANUARY, size=[str(i % 7) for i in range(N)])
    assert told(load_table(tmp_path, made, categorical=["store_id", "day", "size"])).sentences == ()


def test_a_name_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    data = load_table(tmp_path, table(**{"row: number": np.arange(N)}), exclude=["b"])
    assert about(data, "row: number").warnings[0].endswith('leave it out: data.exclude: [b, "row: number"].')


def test_dates_are_numbers_and_told(tmp_path: Path) -> None:
    made = table(day=pa.array(np.arange(N, dtype=np.int32), pa.date32()), time=pa.array(np.arange(N), pa.time64("us")))
    data = load_table(tmp_path, made)
    assert data.input_shape == (4,)
    assert (about(data, "day").kind, about(data, "day").most) == ("date32[day]", 86_400.0 * (N - 1))
    assert about(data, "day").warnings[0] == (
        "column 'day' holds dates or times, and is read as seconds. data.dates: cyclic adds hour, weekday and month. "
        "If it is no feature, leave it out: data.exclude: [day]."
    )
    cyclic = load_table(tmp_path, made, dates="cyclic")
    assert cyclic.input_shape == (2 + (1 + 4) + (1 + 2),)  # weekday and month of a day, the hour of a time
    assert "holds dates" not in about(cyclic, "day").warnings[0]
    assert load_table(tmp_path, made, exclude=["day", "time"]).input_shape == (2,)


def test_periods_that_pandas_writes_are_dates(tmp_path: Path) -> None:
    """They lie in the file as days since 1970, and were read as numbers; their type is known where pandas is loaded."""
    remark = {"ARROW:extension:name": "pandas.period", "ARROW:extension:metadata": '{"freq": "D"}'}
    field = pa.field("when", pa.int64(), metadata=remark)
    made = table().append_column(field, pa.array(10_957 + np.arange(N) % 40))
    with pytest.raises(DataError, match=r"got dates or times in when \(int64\)\. Convert them to what matters, as "):
        load_table(tmp_path, made)
    assert load_table(tmp_path, made, exclude=["when"]).input_shape == (2,)
    with pytest.raises(DataError, match=r"or remove it from data\.features\.$"):
        load_table(tmp_path, made, features=["a", "when"])


# --- what is told -----------------------------------------------------------------------------------------------------


def test_facts_of_each_column(tmp_path: Path) -> None:
    made = table(
        size=[None if i % 10 == 0 else "sml"[i % 3] for i in range(N)],
        pair=[[i, -i] for i in RNG.integers(0, 9, N).tolist()],
        flag=RNG.integers(0, 2, N) > 0,
        vector=[[1.0, 2.0, float(i)] for i in range(N)],
    )
    data = load_table(tmp_path, made, embeddings="vector", exclude=["b"])
    assert told(data).columns == (
        ColumnFacts(name="a", role="feature", kind="double", distinct=N, least=NOISE["a"].min(), most=NOISE["a"].max()),
        ColumnFacts(name="b", role="excluded", kind="double", width=0, why="data.exclude names it"),
        ColumnFacts(name="label", role="label", kind="int64", distinct=3),
        ColumnFacts(name="size", role="categories", kind="string", width=4, distinct=3, missing=60),
        ColumnFacts(name="pair", role="feature", kind="list<element: int64>", width=2),
        ColumnFacts(name="flag", role="feature", kind="bool", distinct=2, least=0, most=1),
        ColumnFacts(name="vector", role="embeddings", kind="list<element: double>", width=3),
    )


def test_columns_beside_a_text_or_an_image_are_told(tmp_path: Path) -> None:
    data = load_table(tmp_path, table(text=[f"word{i % 9} more" for i in range(N)]))
    assert (data.num_tokens > 0, about(data, "text").role, about(data, "text").width) == (True, "text", 2)
    assert told(data).sentences == (
        "column 'a' is not read: the column 'text' alone is the input.",
        "column 'b' is not read: the column 'text' alone is the input.",
    )


def test_columns_beside_a_column_of_pixels_are_told(tmp_path: Path) -> None:
    """A column of that name is the input alone, whatever it holds."""
    data = load_table(tmp_path, table(image=list(RNG.normal(size=(N, 4)))))
    assert (data.input_shape, about(data, "image").width) == ((4,), 4)
    assert told(data).sentences == (
        "column 'a' is not read: the column 'image' alone is the input.",
        "column 'b' is not read: the column 'image' alone is the input.",
    )


def test_facts_are_found_once_and_belong_to_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sources with the same content share an Arrow file, and each keeps what was said of its own columns."""
    places = DataPaths(cache=str(tmp_path / "cache"))
    tasks = [
        task_of(write(tmp_path / "with.parquet", table(__index_level_0__=np.arange(N)))),
        task_of(write(tmp_path / "without.parquet", table())),
    ]
    first = [load(task, places) for task in tasks]
    assert first[0].fingerprint == first[1].fingerprint
    monkeypatch.setattr("subsettune.data._LOADED", {})
    monkeypatch.setattr(sources, "read_parquet", lambda *_: pytest.fail("it is cached"))
    again = [load(task, places) for task in tasks]
    assert [data.facts for data in again] == [data.facts for data in first]
    assert [len(told(data).sentences) for data in again] == [1, 0]


def test_an_entry_of_the_cache_whose_facts_are_of_another_version_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_table(tmp_path, table())
    for entry in (tmp_path / "cache/data").glob("*.json"):
        plain = json.loads(entry.read_text())
        if "facts" in plain:
            entry.write_text(json.dumps({**plain, "facts": {"colums": []}}))
    monkeypatch.setattr("subsettune.data._LOADED", {})
    assert load_table(tmp_path, table()).facts == first.facts


def test_facts_survive_json() -> None:
    facts_ = SourceFacts(
        files=("a",),
        columns=(ColumnFacts(name="x", role="feature", least=0.5, most=2, warnings=("w",)),),
        warnings=("v",),
    )
    assert SourceFacts.from_mapping(json.loads(json.dumps(facts_.to_mapping()))) == facts_
