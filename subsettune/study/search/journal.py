"""The Optuna study that holds all trials, and nothing of how they are chosen.

Each trial carries two user attributes as plain JSON, written in one piece each: `proposal` when it begins and `outcome`
when it ends. They are enough to rebuild a search. Every trial that ends has the constraint `accuracy` (target minus
score, at most 0 is feasible), whatever its state, and a value that is the cost of its *whole* policy: Optuna minimises,
so a trial that was cut short must not look cheap.

For those who look at it (`optuna-dashboard`) the study also has a name for that value, the constraint as a list, where
the dashboard reads it, and the learning curve of each trial, a step for each thousandth of its own compute. None of
these is ever read here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from subsettune import config, former_names
from subsettune.config import FrozenDict
from subsettune.errors import StudyError
from subsettune.study.search.journal_storage import OwnJournal
from subsettune.study.search.observations import Outcome, TrialRecord, to_plain_outcome
from subsettune.study.spec.coordinate import Coordinate
from subsettune.study.spec.space import Space

FIRST_PROPOSALS = 1  # of journals that do not name theirs
METRIC_NAMES = ("compute_share",)  # of the value: compute of the whole policy as a share of the reference's
CURVE_STEPS = 1000  # of a whole policy
_CONSTRAINT = "accuracy"
_CONSTRAINT_LIST = "constraints"  # where Optuna before version 5, and its dashboard, keep and read all of a trial
_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "diverged": TrialState.COMPLETE}


def open_storage(storage: BaseStorage | BaseJournalBackend | None) -> BaseStorage:
    """A storage of Optuna's as it is, a journal backend opened, or one in memory.

    Raises:
        StudyError: the journal cannot be read.
    """
    if storage is None:
        return optuna.storages.InMemoryStorage()
    if isinstance(storage, BaseStorage):
        return storage
    try:
        return JournalStorage(storage)
    except (ValueError, KeyError, TypeError, AssertionError, IndexError) as error:
        raise StudyError(
            f"the journal of the study is damaged ({error}). Restore it from a copy, or start a new study with "
            "another --run-id; finished runs are found again by their checkpoints."
        ) from error


class Journal:
    """Trials of one study, written as they begin and end.

    Args:
        storage: see `open_storage`.
        name: of the Optuna study: the run id.
        identity: what the study is about; the same name with another identity is refused.
        proposals: version of what is proposed after trials; one that has begun goes on with its own alone.
    """

    def __init__(
        self,
        storage: BaseStorage | BaseJournalBackend | None,
        name: str,
        identity: Mapping[str, Any],
        proposals: int = FIRST_PROPOSALS,
    ) -> None:
        self._storage = open_storage(storage)
        self._together = storage.together if isinstance(storage, OwnJournal) else nullcontext
        with quiet():
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction="minimize", load_if_exists=True
            )
            if self._study.metric_names is None:
                self._study.set_metric_names(list(METRIC_NAMES))
        self._check_identity(name, config.to_plain(identity))
        if not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("proposals", proposals)
        self._name, self._proposals = name, proposals
        last = self._study.get_trials(deepcopy=False)[-1:]
        is_open = bool(last) and "proposal" not in last[0].user_attrs and not last[0].state.is_finished()
        self._open = last[0]._trial_id if is_open else None  # begun by a driver that was killed before it proposed it

    def _check_identity(self, name: str, identity: dict[str, Any]) -> None:
        held = self._study.user_attrs.get("identity")
        if held is None:
            self._study.set_user_attr("identity", identity)
            return
        held = {**held, "space": former_names.current_space(held["space"])} if "space" in held else held
        if held != identity:
            different = sorted(key for key in {*held, *identity} if held.get(key) != identity.get(key))
            raise StudyError(
                f"the study {name!r} was made with other settings of: {', '.join(different)}. "
                "Use another --run-id, or the settings it was made with."
            )

    def refuse_other_proposals(self) -> None:
        """Refuse to add to trials of a version that would have gone on with other proposals.

        Raises:
            StudyError: it would have.
        """
        held = self._study.user_attrs.get("proposals", FIRST_PROPOSALS)
        if held != self._proposals:
            raise StudyError(
                f"the search of {self._name!r} was begun by a version that proposes other trials after the same ones: "
                "it would be no search of either. Go on with the version that began it, or choose another --run-id; "
                "`show` and `report` still read it."
            )

    def trials(self) -> Iterator[tuple[TrialRecord, bool]]:
        """All trials in order of their number, and whether Optuna counts them as over.

        One that was cut off before it was a proposal has an empty point, and is the last; one that an earlier version
        swept is over and has no outcome.
        """
        for trial in self._study.get_trials(deepcopy=False):
            yield _record(trial), trial.state.is_finished()

    def begin(self, space: Space, proposal: Mapping[str, Any], num_skipped: int = 0) -> int:
        """Write a new trial and return its number; one that a killed driver had not come to propose is taken up.

        Args:
            space: that it is a point of.
            proposal: plain.
            num_skipped: proposals turned down so far.
        """
        point = proposal["point"]
        axes = [axis for axis in space.coordinates if axis.name in point and not axis.is_single]
        self._study.sampler = _Given({axis.name: encode(point[axis.name]) for axis in axes})
        with self._together():
            # Not `ask`, which looks through all trials for one that waits.
            number = self._storage.create_new_trial(self._study._study_id) if self._open is None else self._open
            self._open, trial = None, Trial(self._study, number)
            for axis in axes:
                trial._suggest(axis.name, distribution(axis))
            if num_skipped != self.num_skipped:
                self._study.set_user_attr("skipped", num_skipped)
            trial.set_user_attr("proposal", config.to_plain(proposal))
        return trial.number

    def end(self, record: TrialRecord, violation: float) -> None:
        """Write how a trial ended; `violation` is target minus score. Safe to repeat after a crash halfway."""
        with self._together():
            self._end(record, violation)

    def _end(self, record: TrialRecord, violation: float) -> None:
        assert record.outcome is not None
        trial = self._trial(record.number)
        if "outcome" not in trial.user_attrs:
            trial.set_user_attr("outcome", to_plain_outcome(record))
        self._constrain(trial, violation)
        _report(trial, record)
        state = _STATES.get(record.outcome.cause, TrialState.FAIL)
        if state is TrialState.PRUNED:  # whose value Optuna would take from the end of its curve
            self._storage.set_trial_state_values(trial._trial_id, state, [record.cost])
        else:
            self._tell(trial, record.cost if state is TrialState.COMPLETE else None, state)

    def _constrain(self, trial: Trial, violation: float) -> None:
        if _CONSTRAINT not in trial.constraints:
            trial.set_constraint(_CONSTRAINT, violation)
        if _CONSTRAINT_LIST not in self._storage.get_trial_system_attrs(trial._trial_id):
            self._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINT_LIST, [violation])

    def _tell(self, trial: Trial, value: float | None, state: TrialState) -> None:
        with quiet():
            self._study.tell(trial, value, state=state)

    def _trial(self, number: int) -> Trial:
        return Trial(self._study, self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    @property
    def num_skipped(self) -> int:
        """Proposals that were turned down, kept with the study."""
        return int(self._study.user_attrs.get("skipped", 0))


def _report(trial: Trial, record: TrialRecord) -> None:
    """Write the learning curve, with the metric of a run that came to its end as the last point."""
    assert record.outcome is not None
    ended = record.outcome.metric if record.outcome.cause == "finished" else None
    steps = {round(CURVE_STEPS * share): metric for share, metric in record.curve}
    steps |= {} if ended is None else {CURVE_STEPS: ended}
    known = trial.storage.get_trial(trial._trial_id).intermediate_values
    for step, metric in steps.items():
        if step not in known:
            trial.report(metric, step=step)


def _record(trial: FrozenTrial) -> TrialRecord:
    proposal = trial.user_attrs.get("proposal")
    if proposal is None:
        return TrialRecord(number=trial.number, point=FrozenDict(), seed=0, cost=0.0)
    ended = trial.user_attrs.get("outcome") or {}
    outcome = None
    if ended:
        outcome = Outcome(**{key: ended[key] for key in Outcome.__dataclass_fields__})
    return TrialRecord(
        number=trial.number,
        point=config.convert(FrozenDict, former_names.current_point(proposal["point"]), (), []),
        seed=proposal["seed"],
        cost=proposal["cost"],
        confirms=proposal["confirms"],
        outcome=outcome,
        curve=tuple((share, metric) for share, metric in ended.get("curve", ())),
        projection=ended.get("projection"),
        is_stop_audit=ended.get("is_check", False),
        is_probe=proposal.get("is_probe", False),
        num_shown=proposal.get("num_shown"),
    )


class _Given(BaseSampler):
    """Gives a trial the values that were decided already."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._values[param_name]


def distribution(axis: Coordinate) -> BaseDistribution:
    """The coordinate as Optuna knows it; always the same, whatever the bounds, or samplers lose their joint space."""
    if axis.kind == "float":
        return FloatDistribution(axis.lo, axis.hi, log=axis.log)
    if axis.kind == "int":
        return IntDistribution(int(axis.lo), int(axis.hi), log=axis.log)
    return CategoricalDistribution([encode(value) for value in axis.values])


def encode(value: Any) -> Any:
    """A value as Optuna stores it: lists become JSON."""
    return config.canonical_json(value) if isinstance(value, list | tuple) else value


def decode(axis: Coordinate, stored: Any) -> Any:
    """The value that `encode` made `stored` of."""
    if axis.kind in ("float", "int"):
        return stored
    return next(value for value in axis.values if encode(value) == stored)


def look_at(backend: BaseJournalBackend, name: str) -> Study:
    """The Optuna study of a journal that is only looked at: `ReadOnlyJournal`.

    Raises:
        StudyError: the journal cannot be read, or holds no study of that name.
    """
    with quiet():
        try:
            return optuna.load_study(study_name=name, storage=open_storage(backend))
        except KeyError as error:
            raise StudyError(f"the journal holds no study {name!r}. Give its folder the name that it had.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's progress lines and notes on experimental arguments off the user's terminal."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
