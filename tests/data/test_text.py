"""Texts: how they are cut, numbered, cached and refused, the real corpora, and a training on them."""

from __future__ import annotations

import dataclasses
import gzip
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_inputs import changed
from fakes import options, two_phases
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupts import ALWAYS, InterruptedRunError, assert_same, interrupt_after
from torch import Tensor, nn

import subsettune.data as data_module
from subsettune import Bundle, TuneOptions, config, select, train, tune
from subsettune.data import DataPaths, TaskData, load, scratch, sources
from subsettune.data.arrays import read
from subsettune.data.encode import TokenIds
from subsettune.data.text import num_tokens, read_texts, words
from subsettune.errors import ConfigError, DataError, DataNotFoundError, ModelError, SubsettuneError
from subsettune.policy import Phase, Policy
from subsettune.task import Data, Task

PLAIN = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
TEXTS = ("Good, good film!", "bad film", "It's good", "bad bad bad", "a film", "Dull film", "good fun", "so dull")
N = 40


def texts(n: int = N) -> list[str]:
    """Reviews that are good (label 1) or bad (label 0) by their second word."""
    rng = np.random.default_rng(0)
    nouns = ("film", "plot", "cast", "end", "score")
    verdicts = ("bad", "dull", "poor"), ("good", "fine", "great")
    return [f"The {rng.choice(verdicts[i % 2])} {rng.choice(nouns)} , twice {rng.choice(nouns)}" for i in range(n)]


def tsv(path: Path, rows: list[str], labels: list[Any] | None = None, header: str = "sentence\tlabel") -> Path:
    labels = [i % 2 for i in range(len(rows))] if labels is None else labels
    lines = [header, *(f"{text}\t{label}" for text, label in zip(rows, labels, strict=True))]
    content = ("\n".join(lines) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def parquet(path: Path, rows: list[Any], name: str = "text", **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: rows, "label": [i % 2 for i in range(len(rows))], **columns}), path)
    return path


def make_task(source: Path | str, model: Any = None, metric: str = "accuracy", **data: Any) -> Task:
    name = {} if str(source).endswith(".parquet") else {"text": "sentence"}
    raw = {
        "data": {"source": str(source), **name, **data},
        "split": {"validation": 0.1, "test": 0.2},
        "model": model or {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "feedforward": 8},
        "recipe": {"optimizer": "adamw", "lr": 0.01, "batch_size": 8, "epochs": 3},
        "metric": metric,
        "tolerance": 0.02,
    }
    return config.build(Task, raw)


def load_file(source: Path, **data: Any) -> TaskData:
    split = {"test": None} if source.is_dir() and list(source.glob("test*")) else {}
    task = make_task(source, **data)
    task = dataclasses.replace(task, split=dataclasses.replace(task.split, **split))
    return load(task, DataPaths(cache=str(source.parent / "cache"), download=False))


def ids(data: TaskData) -> list[list[int]]:
    """All token ids, in the order of the source."""
    return data.train.inputs.tolist()


def vocabulary(data_cache: Path) -> tuple[str, ...]:
    [file] = data_cache.glob("*.arrow")
    return read(file).meta.vocabulary


# --- tokens ----------------------------------------------------------------------------------------------------------


def slow_words(text: str) -> list[str]:
    """Sign by sign: what a word is made of is joined, whitespace dropped, all else stands alone."""
    found, open_word = [], ""
    for sign in text.lower():
        if sign.isalnum() or sign == "_":
            open_word += sign
            continue
        found += [open_word] if open_word else []
        found += [] if sign.isspace() else [sign]
        open_word = ""
    return found + ([open_word] if open_word else [])


def test_words() -> None:
    cut = list(words("It's NOT bad -- \u201cgood\u201d, 10/10!\n"))
    assert cut == ["it", "'", "s", "not", "bad", "-", "-", "\u201c", "good", "\u201d", ",", "10", "/", "10", "!"]
    assert list(words(" \t\u3000")) == []


@settings(deadline=None)
@given(PLAIN)
def test_words_against_the_slow_twin(text: str) -> None:
    assert list(words(text)) == slow_words(text)


def tokenised(rows: list[str], num_train: int, **data: Any) -> tuple[list[list[int]], list[str]]:
    """Through two blocks of unequal size."""

    def blocks() -> Iterator[tuple[int, pa.Array]]:
        cut = len(rows) // 3
        yield 0, pa.array(rows[:cut], pa.string())
        yield cut, pa.array(rows[cut:], pa.string())

    given_data = Data(source="a.tsv", text="s", **data)
    found, kept = read_texts(blocks, len(rows), num_train, given_data, Path("unused"))
    assert found.dtype == np.int32
    return found.tolist(), kept


@settings(deadline=None)
@given(st.lists(PLAIN.filter(lambda text: text != ""), min_size=1, max_size=8))
def test_bytes_come_back(rows: list[str]) -> None:
    found, kept = tokenised(rows, len(rows), tokens="bytes", max_tokens=200)
    assert [bytes(i - 1 for i in row if i).decode() for row in found] == rows
    assert kept == []
    assert len(found[0]) == max(len(row.encode()) for row in rows)


@settings(deadline=None)
@given(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=9), st.integers(1, 6))
def test_ids_against_the_slow_twin(rows: list[str], longest: int) -> None:
    num_train = len(rows) - 1
    found, kept = tokenised(rows, num_train, max_tokens=longest)
    cut = [slow_words(row) for row in rows]
    counts = Counter(word for row in cut[:num_train] for word in row)
    wanted = sorted(counts, key=lambda word: (-counts[word], word))
    length = min(longest, max(map(len, cut[:num_train])))
    assert kept == wanted
    for row, all_words in zip(found, cut, strict=True):
        numbers = [wanted.index(word) + 2 if word in wanted else 1 for word in all_words[:length]]
        assert row == numbers + [0] * (length - len(numbers))


def seen_by_networks(rows: list[str], trained: list[int], size: int) -> tuple[list[list[int]], list[str]]:
    """Ids of all texts, and the words that have one, from the texts alone: only those trained on are looked at."""
    cut = [slow_words(row) for row in rows]
    everywhere = Counter(word for row in cut for word in row)
    counts = Counter(word for i in trained for word in cut[i])
    words_of = sorted(counts, key=lambda word: (-counts[word], -everywhere[word], word))[:size]
    length = max(len(cut[i]) for i in trained)
    numbers = [[words_of.index(w) + 2 if w in words_of else 1 for w in row[:length]] for row in cut]
    return [row + [0] * (length - len(row)) for row in numbers], words_of


@settings(deadline=None)
@given(st.lists(st.sampled_from(TEXTS), min_size=2, max_size=9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_networks_see_the_words_of_the_training_part_alone(rows: list[str], size: int, seed: int) -> None:
    stored, kept = tokenised(rows, len(rows))
    trained = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[: 1 + seed % len(rows)]
    inputs = torch.tensor(stored, dtype=torch.int32)
    encoder = TokenIds.fit(inputs, trained, len(kept) + 2, size)
    wanted, words_of = seen_by_networks(rows, trained.tolist(), size)
    assert (encoder.size, encoder.length) == (len(words_of) + 2, len(wanted[0]))
    assert encoder(inputs).tolist() == wanted
    assert encoder(inputs).dtype == torch.int64
    whole = TokenIds.fit(inputs, trained, len(kept) + 2, None)  # as of bytes: every id, cut to the longest text
    assert (whole.size, whole(inputs).tolist()) == (len(kept) + 2, [row[: encoder.length] for row in stored])


def test_words_of_other_parts_are_unknown(tmp_path: Path) -> None:
    """Each text has a word of its own: a network knows those that it is trained on."""
    rows = [f"own{i} film" + " more" * (i == 7) for i in range(N)]
    path = tsv(tmp_path / "a.tsv", rows)
    data = load_file(path)
    assert data.num_tokens == 2 + len({word for i in data.train.rows.tolist() for word in slow_words(rows[i])})
    held_out = torch.cat([part.batch(torch.arange(len(part)))[0] for part in (data.validation, data.test)])
    assert held_out[:, 0].unique().tolist() == [1]
    assert held_out[:, 1].unique().tolist() == [2]  # the one that all share
    in_training = 7 in data.train.rows.tolist()
    assert data.input_shape == (3 if in_training else 2,)
    few = load_file(path, vocabulary=1)
    assert few.num_tokens == 3
    assert few.train.batch(torch.arange(3))[0][:, :2].tolist() == [[1, 2]] * 3


def test_sizes_of_vocabularies() -> None:
    assert num_tokens("bytes", ()) == 257
    assert num_tokens("words", ("a", "b")) == 4


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r.tsv", "r.tsv.gz", "r.parquet"])
def test_a_file_of_texts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet(path, list(TEXTS) * 5)
    else:
        tsv(path, list(TEXTS) * 5)
    data = load_file(path)
    kept = vocabulary(tmp_path / "cache/data")
    assert kept[:4] == ("bad", "film", "good", "dull")  # 20 each, then 10: ties by text
    wanted, words_of = seen_by_networks(list(TEXTS) * 5, data.train.rows.tolist(), 99)
    assert set(words_of) == set(kept)
    assert data.num_tokens == len(kept) + 2
    assert data.input_shape == (5,)  # of "Good, good film!"
    assert ids(data)[0] == [kept.index(word) + 2 for word in ("good", ",", "good", "film", "!")]
    assert ids(data)[1] == [kept.index("bad") + 2, kept.index("film") + 2, 0, 0, 0]
    inputs, targets = data.train.batch(torch.tensor([0, 1]))
    assert (inputs.dtype, tuple(inputs.shape)) == (torch.int64, (2, 5))
    assert inputs.tolist() == [wanted[int(row)] for row in data.train.rows[:2]]
    assert targets.tolist() == [int(row) % 2 for row in data.train.rows[:2]]


def test_the_same_texts_are_the_same_data_in_any_file(tmp_path: Path) -> None:
    files = [
        tsv(tmp_path / "a.tsv", texts()),
        tsv(tmp_path / "b.tsv.gz", texts()),
        parquet(tmp_path / "c.parquet", texts()),
    ]
    assert len({load_file(path).fingerprint for path in files}) == 1
    other = parquet(tmp_path / "d.parquet", texts(), "sentence")
    assert load_file(other, text="sentence").fingerprint == load_file(files[0]).fingerprint


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_a_folder_of_texts(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "reviews"
    rows = [*["good film", "bad film"] * 10, *["good cast", "bad cast"] * 10]
    tsv(folder / f"train-0{suffix}", rows[:20])
    tsv(folder / f"train-1{suffix}", rows[20:])
    tsv(folder / f"test{suffix}", ["good unseen end that goes on", "bad"])
    tsv(folder / f"dev{suffix}", ["never"])
    data = load_file(folder)
    assert (data.num_source_examples, len(data.test)) == (40, 2)
    assert vocabulary(tmp_path / "cache/data") == ("bad", "cast", "film", "good")  # not those of the test file
    numbers = {word: 2 + i for i, word in enumerate(seen_by_networks(rows, data.train.rows.tolist(), 9)[1])}
    assert len(numbers) == 4
    test = data.test.batch(torch.arange(2))[0].tolist()
    assert test == [[numbers["good"], 1], [numbers["bad"], 0]]  # as long as the training texts


def test_a_quotation_mark_is_a_sign_like_others(tmp_path: Path) -> None:
    rows = ['"good', 'it is "good" film"', '""', "a \\ b"] * 5
    data = load_file(tsv(tmp_path / "a.tsv", rows))
    kept = vocabulary(tmp_path / "cache/data")
    back = [" ".join(kept[i - 2] for i in row if i) for row in ids(data)[:4]]
    assert back == ['" good', 'it is " good " film "', '" "', "a \\ b"]


def test_quotation_marks_of_a_spreadsheet_are_told(tmp_path: Path) -> None:
    """Each text that holds a mark stands in marks and doubles its own; where one does not, people wrote them."""
    written = ['"a ""good"" film"', *(f"film {i}" for i in range(N - 1))]
    data = load_file(tsv(tmp_path / "a.tsv", written))
    assert data.facts is not None
    assert data.facts.sentences == (
        "in 1 of the texts of column 'sentence' quotation marks are doubled, and two more stand around, as pandas and "
        "spreadsheets write them. They are read as they stand: each mark is one more word. Write the file without "
        "(quoting=csv.QUOTE_NONE), or as Parquet.",
    )
    for i, marked in enumerate(('so "good"', '"all of it"', 'a "', '"a" and "" b')):
        rows = [marked, *(written if i != 1 else written[1:]), "film"][:N]
        facts = load_file(tsv(tmp_path / f"{i}.tsv", rows)).facts
        assert facts is not None
        assert facts.sentences == ()


def test_labels_are_numbers_or_texts(tmp_path: Path) -> None:
    named = load_file(tsv(tmp_path / "a.tsv", texts(), ["neg", "pos"] * (N // 2)))
    assert named.class_names == ("neg", "pos")
    whole = load_file(tsv(tmp_path / "b.tsv", texts(), ["0.0", "1.0"] * (N // 2)))
    assert whole.class_names == ("0", "1")
    values = [0.5 * i for i in range(N)]
    found = load_file(tsv(tmp_path / "c.tsv", texts(), values), metric="mse")
    assert found.train.all_targets.tolist() == values


def test_large_ids_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_file(tsv(tmp_path / "a/r.tsv", texts()))
    monkeypatch.setattr(scratch, "MEMORY_BYTES", 100)
    assert load_file(tsv(tmp_path / "b/r.tsv", texts())).fingerprint == plain.fingerprint


def test_a_text_column_of_parquet_is_taken_unless_something_else_is_said(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ["x", "y"] * 20, number=np.arange(40.0))
    assert load_file(path).num_tokens == 4
    assert load_file(path, features=["text", "number"]).num_tokens == 0
    assert load_file(path, categorical=["text"]).input_shape == (3,)
    as_label = parquet(tmp_path / "b.parquet", list(np.arange(40.0)), "number", text=["x", "y"] * 20)
    assert load_file(as_label, label="text").num_tokens == 0
    numbers = parquet(tmp_path / "c.parquet", list(np.arange(40.0)))
    assert load_file(numbers).num_tokens == 0


def test_embeddings_beside_texts(tmp_path: Path) -> None:
    vectors = np.arange(80.0).reshape(40, 2)
    path = parquet(tmp_path / "a.parquet", texts(), vector=list(vectors))
    data = load_file(path, embeddings="vector")
    assert (data.num_tokens > 0, data.num_embedding) == (True, 2)
    assert data.train.embeddings is not None
    assert data.train.embeddings.tolist() == vectors[data.train.rows].tolist()


# --- cache and fingerprints ------------------------------------------------------------------------------------------


def test_texts_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tsv(tmp_path / "a.tsv", texts())
    first = load_file(path)
    monkeypatch.setattr(data_module, "_LOADED", {})
    monkeypatch.setattr(sources, "read_tsv", None)  # whoever reads it again fails
    again = load_file(path)
    assert again.fingerprint == first.fingerprint
    assert (again.num_tokens, again.input_shape) == (first.num_tokens, first.input_shape)
    assert torch.equal(again.train.inputs, first.train.inputs)


def test_another_way_to_cut_is_other_data(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", texts())
    ways: list[dict[str, Any]] = [{}, {"tokens": "bytes"}, {"max_tokens": 3}, {"vocabulary": 4}, {"vocabulary": 5}]
    assert len({load_file(path, **way).fingerprint for way in ways}) == len(ways)
    assert load_file(path, vocabulary=19_999).fingerprint == load_file(path).fingerprint


def test_other_words_with_the_same_ids_are_other_data(tmp_path: Path) -> None:
    plain = load_file(tsv(tmp_path / "a.tsv", ["good", "bad"] * 20))
    other = load_file(tsv(tmp_path / "b.tsv", ["hood", "bad"] * 20))
    assert torch.equal(plain.train.inputs, other.train.inputs)
    assert plain.fingerprint != other.fingerprint


def test_tasks_without_texts_keep_their_keys() -> None:
    assert set(Data(source="digits").to_mapping()) == {"source", "label", "features", "options"}
    given_data = Data(source="a.tsv", text="s", max_tokens=8)
    assert set(given_data.to_mapping()) == {"source", "label", "features", "options", "text", "max_tokens"}
    assert config.build(Data, given_data.to_mapping()) == given_data


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0."),
        ({"vocabulary": 0}, "vocabulary must be at least 1, got 0."),
        ({"tokens": "letters"}, "tokens must be one of words, bytes, got 'letters'."),
        (
            {"tokens": "bytes", "vocabulary": 9},
            "vocabulary means nothing to tokens: bytes, of which there are 256. Remove the key.",
        ),
        ({"features": ["a"]}, "features must be left out beside text, which is the input. Remove one of them."),
        ({"categorical": ["a"]}, "categorical must be left out beside text, which is the input. Remove one of them."),
        (
            {"label": "sentence"},
            "text must be a column of its own, got 'sentence'. Name another for it, or for the rest.",
        ),
    ],
)
def test_keys_that_cannot_be(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Data(source="a.tsv", **{"text": "sentence", **data})
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize("name", ["digits", "tests.data.test_text:absent"])
def test_texts_mean_nothing_to_other_sources(name: str) -> None:
    task = dataclasses.replace(make_task("a.tsv"), data=Data(source=name, tokens="bytes"))
    with pytest.raises(DataError) as caught:
        load(task, DataPaths(download=False))
    assert str(caught.value) == f"data.tokens means nothing to {name!r}: its input and label are known. Remove the key."


def test_texts_mean_nothing_to_npz_and_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 2)), y=np.arange(9) % 2)
    with pytest.raises(DataError) as caught:
        load_file(tmp_path / "a.npz")
    assert str(caught.value) == "data.text means nothing to .npz files. Write texts as Parquet or .tsv."
    with pytest.raises(DataError) as caught:
        load_file(parquet(tmp_path / "a.parquet", [1.0, 2.0] * 9), max_tokens=3)
    assert str(caught.value) == "data.max_tokens means nothing where no texts are read. Set data.text, or remove it."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a", " "], "texts must not be empty, got ' ' in column 'sentence', row 1. Drop such rows."),
        (["", "a"], "texts must not be empty, got '' in column 'sentence', row 0. Drop such rows."),
    ],
)
def test_empty_texts(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_file(tsv(tmp_path / "a.tsv", rows))
    assert str(caught.value) == message


def test_missing_texts_and_columns_of_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ["a", "b", None, "c"])
    with pytest.raises(DataError) as caught:
        load_file(path)
    message = "texts must be there, got nothing in column 'text', row 2. Fill it, or drop such rows."
    assert str(caught.value) == message
    with pytest.raises(DataError) as caught:
        load_file(path, text="label2")
    assert (
        str(caught.value)
        == f"{path} has no column 'label2'. Did you mean 'label'? Its columns: text, label. Set data.text."
    )
    numbers = parquet(tmp_path / "b.parquet", [1, 2, 3])
    with pytest.raises(DataError) as caught:
        load_file(numbers, text="text")
    assert str(caught.value) == f"column 'text' must hold texts, got int64 in {numbers}. Mend data.text."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} is empty, damaged or no file of tab-separated values: Empty CSV file. Write it again."),
        (b"sentence\tlabel\n", "{path} has no rows. Give a file with examples, or remove it."),
        (
            b"text\tlabel\na\t1\n",
            "{path} has no column 'sentence' (its columns: text, label). Set data.text, or mend the first line.",
        ),
        (
            b"sentence\ty\na\t1\n",
            "{path} has no column 'label' (its columns: sentence, y). Set data.label, or mend the first line.",
        ),
        (
            b"sentence\tlabel\tlabel\na\t1\t1\n",
            "{path} has more than one column 'label' (its columns: sentence, label, label). Set data.label, or mend "
            "the first line.",
        ),
        (
            b"sentence\tlabel\na\t1\nb\t \n",
            "column 'label' must have no missing labels, got none in row 1 of {path}. Fill it.",
        ),
        (
            b"sentence\tlabel\na\t1\nb\tc\t0\n",
            "{path} is empty, damaged or no file of tab-separated values: CSV parse error: Row #3: Expected 2 columns, "
            "got 3: b\tc\t0. Write it again.",
        ),
        (
            b"sentence\tlabel\na\t1\n\nb\t0\n",
            "column 'label' must have no missing labels, got none in row 1 of {path}. Fill it.",
        ),
    ],
)
def test_files_that_are_no_tsv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_file(path)
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"sentence\tlabel\n\xff\xfe\t1\n"),
        ("a.tsv.gz", b"no gzip"),
        ("b.tsv.gz", gzip.compress(b"a\tb\n" * 999, mtime=0)[:-9]),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_file(path)
    assert str(caught.value).startswith(f"{path} is empty, damaged or no file of tab-separated values: ")
    assert str(caught.value).endswith(". Write it again.")


def test_labels_of_a_regression_are_numbers(tmp_path: Path) -> None:
    path = tsv(tmp_path / "a.tsv", ["a", "b", "c"], ["1", "2", "high"])
    with pytest.raises(DataError) as caught:
        load_file(path, metric="mse")
    assert str(caught.value) == "labels of a regression must be numbers, got 'high'. Choose a classification metric."


@pytest.mark.parametrize(
    ("key", "value"), [("features", ["sentence"]), ("categorical", ["sentence"]), ("embeddings", "vector")]
)
def test_a_tsv_file_holds_texts_alone(tmp_path: Path, key: str, value: Any) -> None:
    path = tsv(tmp_path / "a.tsv", texts())
    with pytest.raises(DataError) as caught:
        load_file(path, text=None, **{key: value})
    message = f"data.{key} means nothing to .tsv files: texts are their input. Write Parquet instead."
    assert str(caught.value) == message


def test_folders_of_two_kinds_and_absent_files(tmp_path: Path) -> None:
    tsv(tmp_path / "d/train.tsv", texts())
    parquet(tmp_path / "d/train.parquet", texts())
    with pytest.raises(DataError) as caught:
        load_file(tmp_path / "d")
    assert str(caught.value) == (
        f"folder {tmp_path / 'd'} must hold training files of one kind, got train.tsv and train.parquet. Remove one."
    )
    with pytest.raises(DataNotFoundError, match=r"Give a .parquet, .csv, .tsv or .npz file, or a folder"):
        load_file(tmp_path / "none.tsv")


# --- training --------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(cache=str(tmp_path / "cache"), download=False)


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    return tsv(tmp_path / "reviews.tsv", texts(200))


def run(
    task: Task, places: DataPaths, policy: Policy | None = None, report: Any = None, **changes: Any
) -> train.RunResult:
    policy = policy or two_phases(1.0, 2.0, share=0.5, selector="random")
    plain = {"keep_model": True, "evaluations": 20, "splits": ("test",), "places": places, **changes}
    return train.run(task, policy, 0, report=report, options=options(**plain))


def test_facts_of_texts(reviews: Path, places: DataPaths) -> None:
    """FLOPs from the formulas of the layers: t = 6 places, w = 8, one block, 8 hidden units, 2 outputs."""
    facts = train.facts(make_task(reviews), places)
    t, w, f = 6, 8, 8
    block = 2 * t * w * 3 * w + 2 * 2 * t * t * w + 2 * t * w * w + 2 * 2 * t * w * f
    assert (facts.forward_flops, facts.backward_flops) == (block + 2 * w * 2, 2 * (block + 2 * w * 2))
    assert (facts.exits["blocks.0"], facts.exits["tokens"]) == (block, 0)
    assert facts.blocks == ("tokens", "dropout", "blocks.0", "head")
    assert (facts.num_features, facts.head_features, facts.layers["head.pooling"]) == (6, 8, 8)
    assert facts.num_tokens == 2 + len(vocabulary(Path(places.cache_folder) / "data"))


@pytest.mark.slow
def test_a_training_on_texts_is_learnt_and_resumed(reviews: Path, places: DataPaths, tmp_path: Path) -> None:
    task = make_task(reviews)
    whole = run(task, places)
    assert whole.metrics["test"] > 0.9
    for number in (1, len(whole.curve) // 2, len(whole.curve) - 1):
        folder = str(tmp_path / str(number))
        with pytest.raises(InterruptedRunError):
            run(task, places, report=interrupt_after(number), checkpoints=folder, checkpoint_every_s=ALWAYS)
        assert_same(run(task, places, checkpoints=folder, checkpoint_every_s=ALWAYS), whole)


@pytest.mark.parametrize("tokens", ["words", "bytes"])
def test_a_regression_on_texts(tmp_path: Path, places: DataPaths, tokens: str) -> None:
    rows = texts(200)
    path = tsv(tmp_path / "a.tsv", rows, [100.0 + 10 * (i % 2) for i in range(200)])
    result = run(make_task(path, metric="mse", tokens=tokens), places, Policy(phases=(Phase(passes=9.0),)))
    assert result.metrics["test"] < 5.0  # the variance of the targets is 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selector", "selector_options"),
    [
        ("el2n", {"proxy_passes": 1.0}),
        ("grand", {"gradient": "full", "runs": 1, "proxy_passes": 0.5}),
        ("kcenter", {"features": "layer:head.pooling"}),
        ("herding", {"features": "gradients"}),
    ],
)
def test_selectors_on_texts(reviews: Path, places: DataPaths, selector: str, selector_options: dict[str, Any]) -> None:
    chosen = Phase(share=0.25, passes=8.0, selector=selector, selector_options=selector_options)
    result = run(make_task(reviews), places, Policy(phases=(chosen, Phase(passes=1.0))))
    assert result.ledger.select > 0
    assert result.cause == "finished"


@pytest.mark.slow
def test_the_hardest_texts_are_those_with_a_wrong_label(tmp_path: Path, places: DataPaths) -> None:
    labels = [i % 2 for i in range(200)]
    for i in range(0, 200, 20):
        labels[i] = 1 - labels[i]
    task = make_task(tsv(tmp_path / "a.tsv", texts(200), labels))
    data = load(task, places)
    wrong = {int(i) for i in torch.nonzero(data.train.rows % 20 == 0)}
    policy = Policy(
        phases=(
            Phase(share=0.1, passes=9.0, selector="el2n", selector_options={"proxy_passes": 5.0, "runs": 1}),
            Phase(passes=0.5),
        )
    )
    chosen = train.SubsetProvider(train.RunJob.of(task, policy, 0, data)).choose(0).subset
    assert len(wrong & set(chosen.positions.tolist())) > 0.8 * len(wrong)


@pytest.mark.parametrize("features", ["raw", "projection"])
def test_token_ids_are_no_numbers_to_measure_on(reviews: Path, places: DataPaths, features: str) -> None:
    facts = train.facts(make_task(reviews), places)
    assert select.make("kcenter", {"features": features}).why_not(facts, 9) == (
        f"features: {features} of kcenter need numbers, and the inputs are token ids. Use features: layer:NAME, "
        "gradients or embeddings."
    )
    assert select.make("kcenter", {"features": "gradients"}).why_not(facts, 9) is None
    assert select.make("kcenter", {"features": features}).why_not(dataclasses.replace(facts, num_tokens=0), 9) is None


def test_distorted_texts(reviews: Path, places: DataPaths) -> None:
    plain = make_task(reviews)
    spoilt = dataclasses.replace(
        plain, distortion=config.build(type(plain.distortion), {"flip_labels": 0.1, "repeat_share": 0.5})
    )
    before, after = load(plain, places), load(spoilt, places)
    assert len(after.train) == len(before.train) + len(before.train) // 2
    assert run(spoilt, places, Policy(phases=(Phase(passes=6.0),))).metrics["test"] > 0.8


class Counting(nn.Module):
    """A bag of words of the user's own."""

    def __init__(self, num_outputs: int, num_tokens: int) -> None:
        super().__init__()
        self.weights = nn.Linear(num_tokens, num_outputs)
        self.num_tokens = num_tokens

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        assert inputs.dtype == torch.int64
        counts = nn.functional.one_hot(inputs, self.num_tokens).sum(dim=1).to(self.weights.weight.dtype)
        logits: Tensor = self.weights(counts)
        return logits


def test_a_network_of_one_s_own_gets_token_ids(reviews: Path, places: DataPaths) -> None:
    task = make_task(reviews, {"name": "tests.data.test_text:Counting"})
    facts = train.facts(task, places)
    assert facts.forward_flops == 2 * facts.num_tokens * 2
    assert run(task, places, Policy(phases=(Phase(passes=6.0),))).metrics["test"] > 0.9


@pytest.mark.parametrize(
    ("model", "recipe", "error", "message"),
    [
        (
            "mlp",
            {},
            ModelError,
            "model 'mlp' needs numbers, got texts or other token ids. Use transformer, or a network of your own.",
        ),
        (
            "cnn",
            {},
            ModelError,
            "model 'cnn' needs numbers, got texts or other token ids. Use transformer, or a network of your own.",
        ),
        (
            "transformer",
            {"augment": {"flip": True}},
            ConfigError,
            "augment needs images (channels, height, width), got inputs of shape (6,). Switch it off.",
        ),
    ],
)
def test_what_does_not_suit_texts(
    reviews: Path, places: DataPaths, model: str, recipe: dict[str, Any], error: type[SubsettuneError], message: str
) -> None:
    task = make_task(reviews, {"name": model})
    task = dataclasses.replace(
        task, recipe=config.build(type(task.recipe), {"lr": 0.1, "batch_size": 8, "epochs": 1, **recipe})
    )
    with pytest.raises(error) as caught:
        train.facts(task, places)
    assert str(caught.value) == message


@pytest.mark.slow
def test_a_study_of_texts_ends_in_a_bundle(reviews: Path, tmp_path: Path) -> None:
    task = make_task(reviews, tokens="bytes", max_tokens=12).to_mapping()
    parts = {f"task.{key}": task[key] for key in ("data", "split", "model", "recipe")}
    study = changed({**parts, "task.recipe.epochs": 8, "task.tolerance": 0.4, "space.budget": {"log": [0.6, 0.9]}})
    where = TuneOptions(
        storage=str(tmp_path / "runs"), places=DataPaths(cache=str(tmp_path / "cache")), executor="inline", device="cpu"
    )
    study["study"]["trials"] = 2
    view = tune(study, run_id="a", options=where).view
    bundle = Bundle.load(view.summary.bundle)
    assert (bundle.task.data.tokens, bundle.task.data.max_tokens) == ("bytes", 12)
    assert bundle.task.data.text == "sentence"
    again = train.run(bundle.task, bundle.policy, bundle.seed, options=options(places=where.places, splits=("test",)))
    assert again.metrics["test"] == {run.seed: run.metric for run in bundle.evidence.best.runs}[bundle.seed]


# --- the real corpora ------------------------------------------------------------------------------------------------


def real(name: str) -> Path:
    kept = os.environ.get("SUBSETTUNE_DATA")
    if not kept or not (Path(kept) / name).exists():
        pytest.skip(f"needs the real texts: set SUBSETTUNE_DATA to a folder that holds {name}")
    return Path(kept)


@pytest.mark.slow
def test_sst2(tmp_path: Path) -> None:
    """Counts are those of GLUE's files: 67,349 phrases (37,569 positive) and 1,821 test sentences (909)."""
    root = real("sst2/train.tsv.gz")
    task = dataclasses.replace(
        make_task("sst2/"), split=config.build(type(make_task("a.tsv").split), {"validation": 0.1})
    )
    data = load(task, DataPaths(data_root=str(root), cache=str(tmp_path), download=False))
    assert (data.num_source_examples, len(data.test)) == (67_349, 1_821)
    assert data.train.all_targets.sum().item() == 37_569 + 909
    assert int(data.test.targets.sum()) == 909
    with gzip.open(root / "sst2/train.tsv.gz", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n").split("\t")[0] for line in file][1:]
    kept = vocabulary(tmp_path / "data")
    cut = [slow_words(line) for line in lines]
    counts = Counter(word for row in cut for word in row)
    assert kept == tuple(sorted(counts, key=lambda word: (-counts[word], word)))
    assert data.input_shape == (max(map(len, cut)),)
    places_of = {word: place for place, word in enumerate(kept, start=2)}
    for row in range(0, len(lines), 997):
        assert [i for i in data.train.inputs[row].tolist() if i] == [places_of[word] for word in cut[row]]
