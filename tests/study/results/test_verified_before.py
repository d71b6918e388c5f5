"""Studies of one test split are counted, once each, whatever happens meanwhile."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from subsettune.errors import StorageError
from subsettune.study.results.verified_before import VerifiedStudies, any_false, plan_sentence, sentence

DATA = "a" * 64


def studies(cache: Path, fingerprint: str = DATA) -> VerifiedStudies:
    return VerifiedStudies.of(str(cache), fingerprint)


def test_each_study_counts_once_on_its_test_split(tmp_path: Path) -> None:
    assert studies(tmp_path).count() == 0
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind
    for at in ("2026-01-01T00:00:01", "2026-01-01T00:00:09"):
        studies(tmp_path).note("digits-1", "2026-01-01", at=at)
    studies(tmp_path).note("digits-2", "2026-01-02", at="2026-01-02T00:00:00")
    studies(tmp_path).note("digits-1", "2026-01-03", at="2026-01-03T00:00:00")  # of another folder: another study
    studies(tmp_path, "b" * 64).note("digits-1", "2026-01-01", at="2026-01-01T00:00:01")
    assert studies(tmp_path).count() == 3
    assert studies(tmp_path, "b" * 64).count() == 1


def test_a_study_keeps_its_place_when_others_follow(tmp_path: Path) -> None:
    noted = studies(tmp_path)
    assert noted.place("one", "t1") == 1
    noted.note("one", "t1", at="2026-01-01T00:00:01")
    assert noted.place("two", "t2") == 2
    noted.note("two", "t2", at="2026-01-01T00:00:02")
    noted.note("one", "t1", at="2026-01-01T00:00:03")  # started again: it keeps the time of before
    assert (noted.place("one", "t1"), noted.place("two", "t2")) == (1, 2)


def _note(where: tuple[str, int]) -> None:
    cache, number = where
    VerifiedStudies.of(cache, DATA).note(f"study-{number % 8}", "created", at=f"{number:04}")


def test_studies_at_once_do_not_meet(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_note, [(str(tmp_path), number) for number in range(64)], chunksize=4)
    noted = studies(tmp_path)
    assert noted.count() == 8
    assert sorted(noted.place(f"study-{number}", "created") for number in range(8)) == list(range(1, 9))


def test_a_damaged_file_still_counts_before_all_others(tmp_path: Path) -> None:
    noted = studies(tmp_path)
    noted.note("one", "t1", at="2026-01-01T00:00:01")
    (file,) = Path(noted.folder.path).iterdir()
    noted.note("two", "t2", at="2026-01-01T00:00:02")
    for damage in (b"", b"{", b"[]", b'{"at": 3}', b'{"at": "2026", "others": 1e999}', b"\xff\xfe"):
        file.write_bytes(damage)
        assert noted.count() == 2
        assert noted.place("two", "t2") == 2
        noted.note("one", "t1", at="2026-01-01T00:00:03")
        assert noted.count() == 2
    (file.parent / f".{file.name}.0123.tmp").write_bytes(b"half")  # a write that was cut off
    assert noted.count() == 2


def test_studies_of_one_second_have_places_of_their_own(tmp_path: Path) -> None:
    noted = studies(tmp_path)
    for number in range(1, 9):
        noted.note(f"study-{number}", "t", at="2026-01-01T00:00:01")
        assert noted.place(f"study-{number}", "t") == number


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "verified").write_text("a file")
    with pytest.raises(StorageError, match="cannot be"):
        studies(tmp_path).note("one", "t1", at="now")


def test_the_probability_is_that_of_simulated_studies() -> None:
    at_most, independent = any_false(3, 0.05)
    assert at_most == pytest.approx(0.15)
    wrong = (np.random.default_rng(0).random((200_000, 3)) < 0.05).any(axis=1)
    assert independent == pytest.approx(wrong.mean(), abs=0.003)
    assert any_false(1, 0.05) == pytest.approx((0.05, 0.05))
    assert any_false(30, 0.05)[0] == 1


def test_sentences() -> None:
    assert sentence(1, 0.05) is None
    assert sentence(3, 0.05) == (
        "This is the third study on this test split on this machine: that any of 3 passes a policy that does "
        "not match has a probability of at most 0.15, and of 0.143 if they are independent, where each has this "
        "study's error rate. Confirm what you keep with --fresh-seeds."
    )
    for place, word in ((11, "11th"), (12, "12th"), (21, "21st"), (22, "22nd"), (23, "23rd"), (112, "112th")):
        assert f"the {word} study" in (sentence(place, 0.01) or "")
    assert plan_sentence(0, 0.05) is None
    assert (plan_sentence(1, 0.05) or "").startswith("1 study was verified on this test split before, on this machine")
    assert plan_sentence(2, 0.05) == (
        "2 studies were verified on this test split before, on this machine: with a new one the probability that any "
        "of 3 passes a policy that does not match is at most 0.15, where each has this study's error rate. Confirm "
        "what you keep with --fresh-seeds."
    )


def test_a_probability_is_never_told_as_less_than_it_is() -> None:
    said = sentence(5, 0.0125)
    assert said is not None
    assert "at most 0.0625, and of 0.061 if they are independent" in said
    thirtieth = sentence(2, 1 / 60)
    assert thirtieth is not None
    assert "at most 0.03334, and of " in thirtieth
