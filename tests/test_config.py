from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from subsettune import config
from subsettune.config import FRACTION, NOT_EMPTY, POSITIVE, FrozenDict, one_of, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    size: int = setting(rule=POSITIVE)
    share: float = setting(0.5, rule=FRACTION)

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    name: str = setting(rule=one_of(lambda: ("b", "a"), "letter"))
    kind: Literal["x", "y"] = "x"
    flag: bool = False
    rate: float | None = setting(None, rule=POSITIVE)
    inner: Inner = setting(Inner(size=1))
    several: tuple[Inner, ...] = ()
    numbers: tuple[float, ...] = setting((1.0,), rule=NOT_EMPTY)
    either: int | tuple[int, ...] = 0
    free: FrozenDict = setting(FrozenDict())
    anything: Any = None

    def __post_init__(self) -> None:
        config.check(self)


def messages(raw: Any, **more: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.build(Outer, raw, **more)
    return str(caught.value).splitlines()


def test_plain_data_become_frozen_objects() -> None:
    raw = {
        "name": "a",
        "rate": 2,
        "inner": {"size": 3},
        "several": [{"size": 1, "share": 1}, {"size": 2}],
        "numbers": [1, 2.5],
        "either": [1, 2],
        "free": {"a": [1, {"b": None}]},
        "anything": [1],
    }
    made = config.build(Outer, raw)
    assert made.rate == 2.0
    assert isinstance(made.rate, float)
    assert made.inner == Inner(size=3)
    assert made.several == (Inner(size=1, share=1.0), Inner(size=2))
    assert made.numbers == (1.0, 2.5)
    assert made.either == (1, 2)
    assert made.free == {"a": (1, {"b": None})}
    assert made.anything == (1,)
    assert config.build(Outer, config.to_plain(made)) == made
    assert hash(made) == hash(config.build(Outer, raw))


def test_python_and_plain_data_give_the_same() -> None:
    assert Outer(name="a", inner={"size": 3}) == config.build(Outer, {"name": "a", "inner": {"size": 3}})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"name": "c"}, "name: name must be a known letter or package.module:name, got 'c'. Known: a, b."),
        ({}, "key 'name' is missing."),
        ({"name": 3}, "name: name must be a text, got 3."),
        ({"name": "a", "kind": "z"}, "kind: kind must be one of x, y, got 'z'."),
        ({"name": "a", "flag": 1}, "flag: flag must be true or false, got 1."),
        ({"name": "a", "rate": True}, "rate: rate must be a finite number, got True."),
        ({"name": "a", "rate": "5e-4"}, "rate: rate must be a finite number, got '5e-4'. Write it without quotes."),
        ({"name": "a", "rate": "fast"}, "rate: rate must be a finite number, got 'fast'."),
        ({"name": "a", "rate": 0}, "rate: rate must be positive, got 0.0."),
        ({"name": "a", "rate": float("nan")}, "rate: rate must be a finite number, got nan."),
        ({"name": "a", "rate": float("inf")}, "rate: rate must be a finite number, got inf."),
        ({"name": "a", "inner": 3}, "inner: inner must be a mapping of keys to values, got 3."),
        ({"name": "a", "inner": {"size": 1.5}}, "inner.size: size must be a whole number, got 1.5."),
        (
            {"name": "a", "inner": {"size": 1, "share": 40}},
            "inner.share: share must be in (0, 1], got 40.0. It is a fraction, not a percentage: write 0.4 for 40 %.",
        ),
        (
            {"name": "a", "inner": {"sise": 1}},
            "inner.sise: unknown key. Did you mean 'size'? Known keys: share, size.",
        ),
        ({"name": "a", "several": [{"size": 1}, {"size": 0}]}, "several.1.size: size must be positive, got 0."),
        ({"name": "a", "several": {"size": 1}}, "several: several must be a list, got {'size': 1}."),
        ({"name": "a", "numbers": []}, "numbers: numbers must be not empty, got ()."),
        ({"name": "a", "numbers": [1, "x"]}, "numbers.1: numbers must be a finite number, got 'x'."),
        ({"name": "a", "free": [1]}, "free: free must be a mapping of names to values, got [1]."),
        ("a", "the input must be a mapping of keys to values, got 'a'."),
    ],
)
def test_messages(raw: Any, expected: str) -> None:
    assert messages(raw) == expected.split("|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    pass


def test_a_key_where_there_are_none() -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(Bare, {"keep": 1})
    assert str(caught.value) == "keep: unknown key. Known keys: none, there are no options."


def test_a_number_too_large_for_a_float() -> None:
    (message,) = messages({"name": "a", "rate": 10**400})
    assert message.startswith("rate: rate must be a finite number, got 1000")


def test_all_mistakes_come_at_once_with_their_places() -> None:
    raw = {"name": "c", "rate": -1, "inner": {"size": -1, "share": 2}, "nmae": 1, "several": [{"size": 0}]}
    lines = {("name",): 2, ("rate",): 3, ("inner",): 4, ("inner", "share"): 6, ("nmae",): 9}
    found = messages(raw, source="s.yaml", lines=lines)
    assert [message.split(": ")[:3][1] for message in found] == [
        "line 9, nmae",
        "line 2, name",
        "line 3, rate",
        "line 4, inner.size",
        "line 6, inner.share",
        "several.0.size",
    ]
    assert all(message.startswith("s.yaml: ") for message in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    policies: tuple[Policy, ...]

    def __post_init__(self) -> None:
        config.check(self)


def test_a_refused_schema_number_has_its_place() -> None:
    fine = {"phases": [{"passes": 1}]}
    with pytest.raises(ConfigError, match=r"^f: policies.1.schema: schema must be 1 or 2, got 7."):
        config.build(Holder, {"policies": [fine, {**fine, "schema": 7}]}, source="f")


def test_errors_survive_pickling() -> None:
    error = ConfigError((Mistake(("a", "b"), "wrong.", 3),), "f.yaml")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "f.yaml: line 3, a.b: wrong."
    assert again.mistakes == error.mistakes
    assert isinstance(again, ValueError)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(mapping=st.dictionaries(st.text(), plain, max_size=4))
def test_frozen_dicts(mapping: dict[str, Any]) -> None:
    frozen = config.build(Outer, {"name": "a", "free": mapping}).free
    assert config.to_plain(frozen) == mapping
    assert pickle.loads(pickle.dumps(frozen)) == copy.deepcopy(frozen) == frozen
    backwards = FrozenDict(dict(reversed(frozen.items())))
    assert hash(backwards) == hash(frozen)
    assert config.digest(backwards) == config.digest(frozen)


@pytest.mark.parametrize("change", ["__setitem__", "update", "pop", "clear", "setdefault", "__ior__", "popitem"])
def test_frozen_dicts_cannot_be_changed(change: str) -> None:
    frozen: Mapping[str, Any] = FrozenDict({"a": 1})
    with pytest.raises(TypeError, match=r"^a FrozenDict cannot be changed; make a new one$"):
        getattr(frozen, change)("a", 2)
    assert frozen == {"a": 1}


def test_digests_tell_values_apart_and_refuse_nan() -> None:
    assert len(config.digest({"a": 1})) == 64
    assert len({config.digest(v) for v in ({"a": 1}, {"a": 2}, {"b": 1}, [1], "1", 1, None)}) == 7
    with pytest.raises(ValueError, match="Out of range float values"):
        config.digest(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Free:
    options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("inf")])
def test_numbers_that_are_not_finite_have_no_place_in_a_free_mapping(value: float) -> None:
    """NaN is not equal to itself, and neither has a form in JSON: a key made of one would be none."""
    for options, path in (({"a": value}, "options.a"), ({"b": {"a": [1, value]}}, "options.b.a.1")):
        with pytest.raises(ConfigError) as caught:
            Free(options=options)  # type: ignore[arg-type]
        expected = f"{path}: a must be a finite number, got {float(value)!r}."
        assert str(caught.value) == f"{expected} Leave it out, or write null or a text for it."


def test_numbers_of_numpy_and_torch_are_python_s() -> None:
    given = {
        "int": np.int64(3),
        "float": np.float64(0.5),
        "single": np.float32(0.25),
        "bool": np.bool_(True),
        "text": np.str_("a"),
        "array": np.array([1, 2]),
        "scalar array": np.array(4.0),
        "tensor": torch.tensor([0.5]),
        "nested": [{"a": np.uint8(7)}],
    }
    plain = {
        "int": 3,
        "float": 0.5,
        "single": 0.25,
        "bool": True,
        "text": "a",
        "array": (1, 2),
        "scalar array": 4.0,
        "tensor": (0.5,),
        "nested": ({"a": 7},),
    }
    found = Free(options=given)  # type: ignore[arg-type]
    assert found.options == plain
    assert config.digest(found) == config.digest(Free(options=plain))  # type: ignore[arg-type]
    assert {type(value) for value in found.options.values()} == {int, float, bool, str, tuple}


@pytest.mark.parametrize("value", [{1, 2}, b"a", Path("a"), 1j, len, torch.float32])
def test_what_no_file_can_hold_is_one_sentence(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Free(options={"a": value})  # type: ignore[arg-type]
    rule = "a text, a number, true, false, null, a list or a mapping"
    advice = "Name it by a text that your code understands."
    assert str(caught.value) == f"options.a: a must be {rule}, got {value!r}. {advice}"


def test_keys_that_are_one_text_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Free(options={1: "a", "1": "b"})  # type: ignore[arg-type, dict-item]
    assert str(caught.value) == "options: options must be a mapping whose keys differ as texts, got [\"'1'\", '1']."


@dataclass(frozen=True, kw_only=True)
class _Kept:
    content: bytes | None = None

    def __post_init__(self) -> None:
        config.check(self)


def test_bytes_are_base64_where_there_is_text_alone() -> None:
    kept = _Kept(content=b"\x00\xff")
    assert config.to_plain(kept) == {"content": "AP8="}
    assert config.build(_Kept, {"content": "AP8="}) == kept
    assert config.build(_Kept, {"content": None}) == _Kept()
    for wrong in ("AP8", "A?==", 3, ["A"]):
        with pytest.raises(ConfigError, match="content must be bytes, or base64 text of them, got"):
            config.build(_Kept, {"content": wrong})
