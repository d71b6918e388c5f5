"""The stage of the ablation: each component of the space against its baseline, with seeds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from subsettune.policy import SUBSET, Policy
from subsettune.study.ablation.choose import COMPARED, Found, Ground, choose
from subsettune.study.ablation.judge import Rules, judge
from subsettune.study.context import StudyContext
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.sequence import RunSource
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.manifest import AblationState
from subsettune.study.results.records import RunRecord
from subsettune.study.search.search import Search
from subsettune.study.spec.components import Component
from subsettune.train.result import CurvePoint


def contenders(context: StudyContext) -> tuple[Component, ...]:
    """The components that a study compares with their baselines; none where it spends no seeds on it."""
    return context.study.contenders if context.settings.ablation_seeds else ()


class AblationStage:
    """Compares the components of the space with their baselines."""

    name = "ablation"

    def __init__(self, context: StudyContext, search: Search) -> None:
        self.context, self.search = context, search

    def source(self) -> RunSource:
        """The ablation that was begun, or a new one for the trials of a search that has gone on."""
        context, begun = self.context, self.context.folder.manifest.ablation
        asked, rows = context.settings.trials, tuple[AblationResult, ...]()
        if begun is not None and begun.trials_asked >= asked:
            asked, rows = begun.trials_asked, begun.results
        rows += self._missing(rows)
        records = (*context.folder.records("ablation"), *context.folder.records("verification"))

        def save(record: RunRecord | None) -> None:
            if record is not None:
                context.keep(record)
                context.drop_checkpoint(record)
            else:
                context.folder.note(ablation=source.state(asked))
                context.folder.save()

        source = AblationSource(rows, self._rules(), records, save)
        save(None)
        if source.num_waiting:
            context.observer.stage(self.name, source.num_waiting)
        return source

    def finish(self) -> None:
        """Every change is on disk already."""

    def _rules(self) -> Rules:
        context = self.context
        first = context.seeds[0]  # as in verification, whose runs then serve again; more if it has fewer
        return Rules(
            facts=context.facts,
            seeds=tuple(range(first, first + context.settings.ablation_seeds)),
            higher_is_better=context.task.higher_is_better,
            resolution=context.resolution("validation"),
        )

    def _missing(self, rows: Sequence[AblationResult]) -> tuple[AblationResult, ...]:
        """The rows that are missing beside some, also of a study from before their kind was compared."""
        context = self.context
        found = Found(
            trials=context.folder.records("trial"),
            trusted=tuple(candidate.policy for candidate in self.search.shortlist.accepted(arm=SUBSET)),
            target=context.target(),
            higher_is_better=context.task.higher_is_better,
        )
        ground = Ground(space=context.space, facts=context.facts, recipe=context.task.recipe, invalid=context.why_not)
        known = {row.component for row in rows}
        at_most = max(0, COMPARED - sum(row.policy is not None for row in rows))  # version 0.1 compared all
        return choose((c for c in contenders(context) if c not in known), found, ground, at_most)


class AblationSource:
    """The runs of an ablation that are not on record yet, and what all of them show.

    Args:
        rows: as `choose` made them, or as they were saved.
        rules: how they are judged.
        records: of ablation and verification; runs of the compared policies with these seeds serve again.
        save: called with each record before it counts, and with None after every change.
    """

    def __init__(
        self,
        rows: Sequence[AblationResult],
        rules: Rules,
        records: Iterable[RunRecord],
        save: Callable[[RunRecord | None], None],
    ) -> None:
        self._rows, self._rules, self._save = tuple(rows), rules, save
        self._runs = {(record.policy.key, record.seed): record for record in records}
        self._waiting = list(self._missing())

    @property
    def num_waiting(self) -> int:
        """Runs that have not begun."""
        return len(self._waiting)

    @property
    def rows(self) -> tuple[AblationResult, ...]:
        """Every component with what its runs show so far."""
        return judge(self._rows, self._runs, self._rules)

    def _missing(self) -> Iterator[RunRequest]:
        """Pair by pair, so that an interruption leaves as many whole pairs as it can; a shared baseline runs once."""
        known = set(self._runs)
        for row in self._rows:
            for seed in self._rules.seeds:
                for name, policy in ((row.name, row.policy), (row.component.against, row.baseline)):
                    if policy is not None and (policy.key, seed) not in known:
                        known.add((policy.key, seed))
                        yield _request(name, policy, seed)

    def next(self) -> RunRequest | Pause:
        """See `RunSource.next`."""
        return self._waiting.pop(0) if self._waiting else Pause.DONE

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Nothing in an ablation is stopped early."""
        return False

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Put the run on record, then the rows that it changes."""
        self._save(record)
        self._runs[record.policy.key, record.seed] = record
        self._save(None)

    def state(self, trials_asked: int) -> AblationState:
        """As the manifest holds it."""
        return AblationState(trials_asked=trials_asked, seeds=tuple(self._rules.seeds), results=self.rows)


def _request(component: str, policy: Policy, seed: int) -> RunRequest:
    """A run named by its policy: a later ablation with another policy of the component must not replace it."""
    word = re.sub(r"[^A-Za-z0-9_]+", "-", component)  # names of runs are names of files
    name = f"compare-{word}-{policy.key[:8]}-seed-{seed}"
    return RunRequest(name=name, role="ablation", candidate=component, policy=policy, seed=seed)
