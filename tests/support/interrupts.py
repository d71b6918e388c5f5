"""Runs that are interrupted at a point of their curve, and what must be equal when they come back."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import image_task, options, same_bits, two_phases

from subsettune import train
from subsettune.policy import Policy
from subsettune.task import Task
from subsettune.train import CurvePoint, RunResult
from subsettune.train.learner import Learner

Data = dict[str, str]
ALWAYS, NEVER = 1e-9, 1e9  # seconds between checkpoints


class InterruptedRunError(Exception):
    """Raised from `report`."""


def noisy_task(data: Data, **recipe: Any) -> Task:
    """Everything with a state: dropout, batch norm, augmentation, momentum."""
    return image_task(data, {"name": "fakes:Noisy"}, augment={"flip": True, "crop_padding": 1}, **recipe)


ADAM = {"optimizer": "adam", "momentum": None, "lr": 0.01}
POLICY = two_phases(1.0, 0.4, share=0.05, selector="kcenter", transition="shrink_perturb")


def run(task: Task, policy: Policy = POLICY, report: Any = None, **changes: Any) -> RunResult:
    plain = {"keep_model": True, "evaluations": 200, "splits": ("test",), **changes}
    return train.run(task, policy, 3, report=report, options=options(**plain))


def interrupt_after(num_points: int) -> Any:
    """A report that raises at the point of that number, counted from 1."""
    seen: list[CurvePoint] = []

    def report(point: CurvePoint) -> bool:
        seen.append(point)
        if len(seen) == num_points:
            raise InterruptedRunError
        return False

    return report


def assert_same(a: RunResult, b: RunResult) -> None:
    curves = [[(p.share, p.flops, p.phase, p.metric, p.loss) for p in r.curve] for r in (a, b)]
    assert same_bits(a.model, b.model)
    assert curves[0] == curves[1]
    assert (a.ledger, a.metrics, a.updates, a.switch_shares) == (b.ledger, b.metrics, b.updates, b.switch_shares)
    assert [one.flops for one in a.phases] == [one.flops for one in b.phases]


def count_updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Examples of each update that is made in this process from now on."""
    made: list[int] = []
    fit = Learner.fit

    def counting(self: Learner, inputs: Any, *rest: Any, **more: Any) -> Any:
        made.append(len(inputs))
        return fit(self, inputs, *rest, **more)

    monkeypatch.setattr(Learner, "fit", counting)
    return made
