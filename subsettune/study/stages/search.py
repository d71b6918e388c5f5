"""The stage of the search: trials as it proposes them, and what it is told of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.policy import FULL, OWN
from subsettune.study.context import STEMS_BYTES, StudyContext
from subsettune.study.execute.requests import Pause, RunRequest
from subsettune.study.execute.sequence import RunSource
from subsettune.study.results.appended import ADVICE
from subsettune.study.results.folder import JOURNAL, TABLES
from subsettune.study.results.known_before import TakenStudy
from subsettune.study.results.records import RunRecord
from subsettune.study.search.earlier import EarlierStudy, EarlierTrial
from subsettune.study.search.journal_storage import journal_at
from subsettune.study.search.problem import SearchProblem, SearchSettings
from subsettune.study.search.search import WAIT, Outcome, Proposal, Search
from subsettune.study.spec.space import Space
from subsettune.study.stages import reference
from subsettune.task import Recipe
from subsettune.train.result import CurvePoint

LOOK_AGAIN = 1.1  # more trials than at the last look, after which what leads is looked up whatever has ended


class SearchStage:
    """Proposes policies and trains them, until the trials or the time are used up."""

    name = "search"

    def __init__(self, context: StudyContext) -> None:
        self.context = context
        problem = SearchProblem(
            space=context.space,
            facts=context.facts,
            target=context.target(),
            higher_is_better=context.task.higher_is_better,
            why_not=context.why_not,
            prefix=context.prefix if context.settings.share_prefixes else None,
            recipe=recipe_values(context.space, context.task.recipe),
            reference=reference.mean(context.references()),
            num_references=len(context.references()),
            earlier=tuple(self._earlier(one) for one in context.known_before),
        )
        asked = context.settings
        settings = SearchSettings(
            trials=asked.trials, parallel=asked.parallel, seed=asked.seed, sampler=asked.sampler, noise=self._noise()
        )
        storage = journal_at(context.folder.folder, JOURNAL)
        self.search = Search(problem, settings, storage=storage, name=context.folder.run_id)
        self._started_s = context.clock()
        self._told = ""  # key of the policy last told as the best so far
        self._num_at_look = 0  # trials that had ended when what leads was last looked up

    def source(self) -> RunSource:
        """The trials that are not on record yet; those that an interruption cut off come first."""
        known = {record.number: record for record in self.context.folder.records("trial")}
        for number in self.search.leftovers:
            if number in known:
                self.search.observe_all(number, observed(known[number]))
                self.search.tell(number, outcome(known[number]))
        self._refuse_lost(known)
        again = self.search.recover()
        self._started_s = self.context.clock()
        left = self.context.settings.trials - len(known)
        if left > 0:
            self.context.observer.stage(self.name, left)
        return TrialSource(self.search, again, self._keep, self._tell_best, self._is_out_of_time)

    def finish(self) -> None:
        """Note what the search counted, and between which costs it sees the least with which plain training matches.

        Of the subset arm it sees too little for that: it may not have met the best kind of policy.
        """
        counts, ends = FrozenDict(config.to_plain(self.search.counts)), self.search.shortlist.interval(FULL)
        needs = FrozenDict({} if ends is None else {FULL: list(ends)})
        self.context.note(search=counts, sampler=self.search.settings.source, needs=needs)
        self._drop_marks()
        self.context.stems.remove()

    def _drop_marks(self) -> None:
        """Remove the marks that workers wrote when they left a trial, after the driver had stopped and removed it."""
        left = set(self.context.checkpoints.names())
        for record in self.context.folder.records("trial"):
            name = self.context.checkpoint_name(record.policy, record.seed).replace(".checkpoint", ".mark")
            if name in left:
                self.context.checkpoints.remove(name)

    def _refuse_lost(self, known: Mapping[int, RunRecord]) -> None:
        """The search builds on trials whose rows must be there: they are not trained again."""
        ended = (record.number for record in self.search.records if record.outcome is not None)
        lost = [number for number in ended if number not in known]
        if lost:
            table, more = f"{self.context.folder.folder}/{TABLES['trial']}", len(lost) - 1
            raise StudyError(
                f"{table} lacks {trial_name(lost[0])}{f' and {more} more' if more else ''}, which the journal of the "
                f"search has. {ADVICE}"
            )

    def _noise(self) -> float:
        noise = self.context.folder.manifest.noise
        assert noise is not None, "the stage of the reference notes it"
        return self._at_least_an_example(noise)

    def _at_least_an_example(self, noise: float) -> float:
        """A spread of the metric over seeds, or that of one example's worth: ties happen by chance."""
        return max(noise, 0.5 * self.context.resolution("validation"))

    def _earlier(self, taken: TakenStudy) -> EarlierStudy:
        """An earlier study as the search is told of it."""
        sign = 1.0 if self.context.task.higher_is_better else -1.0
        trials = (EarlierTrial(point=t.coordinates, score=sign * t.metric, seed=t.seed) for t in taken.trials)
        return EarlierStudy(
            reference=sign * taken.reference,
            num_references=taken.num_references,
            noise=self._at_least_an_example(taken.noise),
            trials=tuple(trials),
        )

    def _is_out_of_time(self) -> bool:
        limit = self.context.settings.time_limit_s
        return limit is not None and self.context.clock() - self._started_s > limit

    def _keep(self, record: RunRecord) -> None:
        self.context.keep(replace(record, is_stop_audit=self.search.is_audit(record.number)))
        self.context.drop_checkpoint(record)
        if self.context.settings.share_prefixes:
            self.context.stems.trim(STEMS_BYTES)

    def _tell_best(self, number: int) -> None:
        """Tell of what leads once a trial has ended; a fit of the model takes longer than all else that one costs."""
        counts = self.search.counts
        ended = counts.finished + counts.stopped + counts.failed
        if ended < LOOK_AGAIN * self._num_at_look and not self.search.may_lead(number):
            return
        self._num_at_look = ended
        best = self.search.shortlist.best()
        if best is None or best.policy.key == self._told:
            return
        sign = 1 if self.context.task.higher_is_better else -1
        gap = sign * (best.metric - reference.mean(self.context.references()))
        self.context.observer.best(best.policy, best.cost, gap)
        self._told = best.policy.key


def recipe_values(space: Space, recipe: Recipe) -> FrozenDict:
    """What the conventional recipe has for the hyperparameters of a space, as far as it says."""
    names = (axis.name for axis in space.coordinates if axis.name in Recipe.__dataclass_fields__)
    known = {name: value for name in names if (value := getattr(recipe, name)) is not None}
    return FrozenDict({**known, **{f"{OWN}.{name}": value for name, value in recipe.own.items()}})


class TrialSource:
    """Trials, as the search proposes them.

    Args:
        search: asked and told.
        again: runs that an interruption cut off; they come first, and go on from their checkpoints.
        done: told each record, before the search is.
        told: told the number of each trial, after the search was told of it.
        out_of_time: whether no new trial may start.
    """

    def __init__(
        self,
        search: Search,
        again: Iterable[Proposal],
        done: Callable[[RunRecord], None],
        told: Callable[[int], None],
        out_of_time: Callable[[], bool],
    ) -> None:
        self._search, self._again, self._done = search, list(again), done
        self._told, self._out_of_time = told, out_of_time

    def next(self) -> RunRequest | Pause:
        """The next trial."""
        if self._again:
            return _trial(self._again.pop(0))
        if self._out_of_time():
            return Pause.DONE
        proposal = self._search.propose()
        if isinstance(proposal, Proposal):
            return _trial(proposal)
        return Pause.WAIT if proposal is WAIT else Pause.DONE

    def progress(self, request: RunRequest, point: CurvePoint) -> bool:
        """Whether the search gives this trial up."""
        if point.metric is None or point.share >= 1:
            return False
        return self._search.observe(request.number, point.share, point.metric)

    def set_aside(self, request: RunRequest) -> None:
        """A trial has ended, and how is told later: another may start."""
        self._search.set_aside(request.number)

    def finished(self, request: RunRequest, record: RunRecord) -> None:
        """Put the trial on record, then tell the search: a driver killed in between finds the record."""
        self._search.observe_all(request.number, observed(record))
        self._done(record)
        self._search.tell(request.number, outcome(record))
        self._told(request.number)


def outcome(record: RunRecord) -> Outcome:
    """What the search is told of a trial."""
    return Outcome(
        cause=record.cause,
        metric=record.metric if record.cause == "finished" else None,
        share_used=min(1.0, max(0.0, record.share_used)),
        message=record.message,
    )


def observed(record: RunRecord) -> Iterator[tuple[float, float]]:
    """What the search sees of a trial's learning curve: all but its end."""
    return ((p.share, p.metric) for p in record.curve if p.metric is not None and p.share < 1)


def trial_name(number: int) -> str:
    """Name of the run of a trial."""
    return f"trial-{number:04d}"


def _trial(proposal: Proposal) -> RunRequest:
    return RunRequest(
        name=trial_name(proposal.number),
        role="trial",
        number=proposal.number,
        policy=proposal.policy,
        coordinates=proposal.coordinates,
        seed=proposal.seed,
        confirms=proposal.confirms,
    )
