"""Networks that are handed over in Python, for tasks, which hold names alone: in this process, while it needs them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from weakref import WeakValueDictionary

from torch import nn

from subsettune.config import FrozenDict
from subsettune.errors import ModelError
from subsettune.task import Model

Builder = Callable[[tuple[int, ...], int], nn.Module]
_GIVEN: WeakValueDictionary[int, Given] = WeakValueDictionary()
_NUMBERS = itertools.count()


class Given:
    """What builds a network; its `model` can be made by this process as long as this lives.

    Args:
        build: called with the shape of an example and the number of outputs; gives a network of its own each time.
    """

    def __init__(self, build: Builder) -> None:
        self.build, number = build, next(_NUMBERS)
        _GIVEN[number] = self
        self.model = Model(name=f"{__name__}:module", options=FrozenDict({"number": number}))


def module(input_shape: tuple[int, ...], num_outputs: int, *, number: int) -> nn.Module:
    """The network that was handed over under a number.

    Raises:
        ModelError: it was handed over to another process, or is gone.
    """
    given = _GIVEN.get(number)
    if given is None:
        raise ModelError("the module was handed over in Python, and is not here any more. Hand it over again.")
    return given.build(input_shape, num_outputs)
