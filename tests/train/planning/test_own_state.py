from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from fakes import image_task, options
from torch import nn

from subsettune import train
from subsettune.policy import Phase, Policy
from subsettune.train.orders.base import Order, Stream
from subsettune.train.orders.uniform import Shuffled
from subsettune.train.planning import own_state

pytestmark = pytest.mark.usefixtures("untouched_random_state")
HERE = "tests.train.planning.test_own_state"
NUMBERS: list[int] = []
BY_NAME: defaultdict[str, int] = defaultdict(int)
RECENT: deque[int] = deque()
ARRAY = np.zeros(2)
TENSOR = torch.zeros(2)
LAYER = nn.utils.skip_init(nn.Linear, 1, 1)


class Keeping:
    count = 0


CHANGES: dict[str, Callable[[], Any]] = {
    "NUMBERS": lambda: NUMBERS.append(1),
    "BY_NAME": lambda: BY_NAME.update(a=BY_NAME["a"] + 1),
    "RECENT": lambda: RECENT.append(1),
    "ARRAY": lambda: ARRAY.__iadd__(1),
    "TENSOR": lambda: TENSOR.add_(1),
    "LAYER": lambda: LAYER.weight.detach().add_(1),
    "Keeping.count": lambda: setattr(Keeping, "count", Keeping.count + 1),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    own_state._TOLD.clear()
    before = own_state.snapshot([f"{HERE}:Keeping", "not_loaded:Thing"])
    own_state.tell(before, own_state.snapshot([f"{HERE}:Keeping"]))
    assert caplog.messages == []
    CHANGES[name]()
    with caplog.at_level(logging.WARNING, "subsettune"):
        for _ in range(2):
            own_state.tell(before, own_state.snapshot([f"{HERE}:Keeping"]))
    assert caplog.messages == [
        f"A run has changed {HERE}:{name}. If a later run reads it, runs depend on each other, and the same seed gives "
        "other results: keep it in the object, not in its class or module."
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembers(Order):
    """The uniform order; it counts over all runs how often it was used."""

    summary: ClassVar[str] = "counts"
    used: ClassVar[int] = 0

    def stream(self, num_examples: int, batch_size: int, seed: int) -> Stream:
        Remembers.used += 1
        return Shuffled(num_examples, batch_size, seed)


@pytest.mark.parametrize(("order", "is_told"), [("uniform", False), (f"{HERE}:Remembers", True)])
def test_an_order_that_keeps_something_in_its_class_is_told(
    tiny_data: dict[str, str], caplog: pytest.LogCaptureFixture, order: str, is_told: bool
) -> None:
    own_state._TOLD.clear()
    with caplog.at_level(logging.WARNING, "subsettune"):
        train.run(image_task(tiny_data), Policy(phases=(Phase(passes=1, order=order),)), 0, options=options())
    assert ("Remembers.used" in caplog.text) is is_told
