"""What is handed over in Python has a name, or is refused with what to hand over instead."""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np
import pytest
from torch import nn

from subsettune.errors import ConfigError
from subsettune.in_memory import code_name, kind_of, source_name
from subsettune.task import Data, Model


def build(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Linear(input_shape[0], num_outputs)


class Outer:
    class Net(nn.Module):
        pass


def local() -> Any:
    def net() -> None: ...

    return net


def test_names_of_code() -> None:
    assert __name__ in sys.modules
    assert code_name(build, "model") == f"{__name__}:build"
    assert code_name(Outer.Net, "model") == f"{__name__}:Outer.Net"
    assert code_name("mlp", "model") == "mlp"
    assert source_name(build) == f"{__name__}:build"


@pytest.mark.parametrize("code", [lambda: 0, local(), functools.partial(build, num_outputs=3)])
def test_code_without_a_name(code: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"model must be importable by its name, got .*, which other processes cannot"
    ):
        Model(name=code)


def test_a_network_that_is_made_already() -> None:
    with pytest.raises(ConfigError) as caught:
        Model(name=nn.Linear(2, 3))
    assert str(caught.value) == (
        "name: model must be a function or class that makes a new one, got a Linear that is made already: every run "
        "needs fresh weights. Hand over its class or a function, with its options beside it."
    )


@pytest.mark.parametrize(
    ("source", "got"),
    [
        ([1, 2, 3], "a list"),
        ((np.zeros(3), np.zeros(3), np.zeros(3)), "a tuple of ndarray, ndarray, ndarray"),
        ((), "a tuple of nothing"),
        ({1, 2}, "a set"),
        ((np.zeros((3, 2)), object()), "a tuple of ndarray, object"),
    ],
)
def test_what_is_no_data(source: Any, got: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Data(source=source)
    assert str(caught.value) == (
        f"source: source must be data or their name, got {got}. Hand over a table (pandas, polars, Arrow), a pair "
        "(X, y) of arrays, or a map-style Dataset, or a pair of tables or Datasets (training, test), or name a file."
    )


def test_a_dataset_that_fails_is_named() -> None:
    class Broken:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, i: int) -> None:
            raise OSError("no such disk")

    with pytest.raises(
        ConfigError, match=r"example 0 of the Dataset cannot be read: OSError: no such disk\. Mend it\."
    ):
        Data(source=Broken())


def test_types_and_shapes_are_content() -> None:
    names = {
        source_name((np.zeros((4, 6)), np.arange(4))),
        source_name((np.zeros((4, 6), dtype=np.float32), np.arange(4))),
        source_name((np.zeros((4, 2, 3)), np.arange(4))),
        source_name((np.zeros((4, 6)), np.arange(4).astype(str))),
    }
    assert len(names) == 4
    assert {kind_of(name) for name in names} == {"arrays"}
