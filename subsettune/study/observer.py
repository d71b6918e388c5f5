"""What a study tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

from subsettune.policy import Policy
from subsettune.study.results.records import RunRecord
from subsettune.study.results.view import StudyView


class Observer(Protocol):
    """What a study's driver calls. No call may raise or wait."""

    def stage(self, name: str, num_runs: int | None) -> None:
        """A stage begins; `num_runs` is null when unknown.

        Stages that train: `reference`, `search`, `verification`, `ablation`. Around them: `reading data`, `counting
        FLOPs`, `checking the space`, `starting Ray` or `connecting to Ray`, `export`, `report`.
        """

    def run_started(self, name: str) -> None:
        """A run began to train."""

    def run_progress(self, name: str, share: float, metric: float | None) -> None:
        """A run has used `share` of its compute; `metric` is its latest on the validation split."""

    def run_finished(self, record: RunRecord) -> None:
        """A run came to its end, whatever the cause."""

    def best(self, policy: Policy, cost_share: float, gap: float) -> None:
        """The best policy, new or not: its compute as a share of the reference's; metric minus reference, oriented."""

    def note(self, message: str) -> None:
        """One sentence worth a line: a retry, a false-stop check."""

    def finished(self, view: StudyView) -> None:
        """The study is at its end; the display closes."""
