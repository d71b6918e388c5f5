"""The manifest of a study: what it was asked, how far it is, on what it ran. The JSON file beside the tables, typed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from subsettune import config, former_names
from subsettune.config import FrozenDict
from subsettune.facts import TaskFacts
from subsettune.policy import BATCHING
from subsettune.study.results.ablation import AblationResult
from subsettune.study.results.candidate import Candidate
from subsettune.study.results.confirmation import Confirmation
from subsettune.study.results.contrast import Contrast
from subsettune.study.results.known_before import KnownBefore
from subsettune.study.results.sampled import SampledDifference
from subsettune.study.results.verdict import Verdict
from subsettune.study.spec.components import Component
from subsettune.study.spec.definition import Study

MANIFEST_SCHEMA = 1
ORIGIN_KEYS = ("versions", "hardware", "data")  # where numbers come from: each with a heading of its own in a report
SHOWN_ELSEWHERE = (
    *ORIGIN_KEYS,
    "command",
    "study",
    "rounds",
    "ablation",
    "batching",
    "sampled",
    "confirmations",
    "known_before",
)
FORMER_BATCHING = 1  # of studies that do not name theirs
PAIRED_VERSION = 1  # of the states of verification that version 0.1 wrote
STATE_KEYS = ("alpha_spent", "winner")  # of a state of verification, read here; the rest is its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A start of the driver.

    Args:
        at: when, in UTC, as ISO 8601.
        command: that goes on with the study; empty where it was started from Python.
    """

    at: str
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOrigin:
    """Which data a study trains on.

    Args:
        fingerprint: content hash of data and split.
        source: as the study file names it.
        warnings: sentences about them that should be read before a number of the study is believed.
        test_from: where the test part comes from: `file`, an official test file, or `split`, drawn from the training
            file; empty in a study of before this was noted.
        validation_from: `file` where the validation part is an official file; else empty.
    """

    fingerprint: str
    source: str = ""
    test_from: str = ""
    validation_from: str = ""
    warnings: tuple[str, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form."""
        plain: dict[str, Any] = {"fingerprint": self.fingerprint, "source": self.source}
        plain |= {"test_from": self.test_from} if self.test_from else {}
        plain |= {"validation_from": self.validation_from} if self.validation_from else {}
        return {**plain, "warnings": list(self.warnings)} if self.warnings else plain

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> DataOrigin:
        """Read what `to_mapping` wrote."""
        return cls(**{"source": "", **raw, "warnings": tuple(raw.get("warnings", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """A round of verification.

    Args:
        candidates: by name, in the order of their tests, controls last.
        verdicts: by name, as they may be told.
        state: of the state machine, plain: `Verification.from_mapping` reads it.
        contrasts: the policy that won against its controls, by name of the control; none in version 0.1.
        trials_asked: trials of the search that it chose from.
        is_over: whether it has come to its end, controls included.
    """

    candidates: Mapping[str, Candidate]
    verdicts: Mapping[str, Verdict]
    state: Mapping[str, Any]
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    trials_asked: int = 0
    is_over: bool = True

    @property
    def winner(self) -> str | None:
        """Name of the cheapest candidate that passed."""
        name: str | None = self.state["winner"]
        return name

    @property
    def is_paired(self) -> bool:
        """Whether it is of version 0.1, which tested differences of pairs with one seed, dearest candidate first."""
        return int(self.state.get("version", PAIRED_VERSION)) == PAIRED_VERSION

    @property
    def alpha_spent(self) -> float:
        """Share of the error rate that it and the rounds before it used up."""
        return float(self.state["alpha_spent"])

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "candidates": {name: candidate.to_mapping() for name, candidate in self.candidates.items()},
            "order": list(self.candidates),  # which the file, sorted by key, does not keep
            "state": dict(self.state),
            "verdicts": {name: verdict.to_mapping() for name, verdict in self.verdicts.items()},
            "contrasts": {name: contrast.to_mapping() for name, contrast in self.contrasts.items()},
            "trials_asked": self.trials_asked,
            "is_over": self.is_over,
        }

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> RoundState:
        """Read what `to_mapping` wrote."""
        for key in STATE_KEYS:
            raw["state"][key]
        names = raw.get("order", raw["candidates"])
        return cls(
            candidates={name: Candidate.from_mapping(name, raw["candidates"][name]) for name in names},
            verdicts={name: Verdict.from_mapping(plain) for name, plain in raw["verdicts"].items()},
            state=raw["state"],
            contrasts={name: Contrast.from_mapping(plain) for name, plain in raw.get("contrasts", {}).items()},
            trials_asked=raw.get("trials_asked", 0),
            is_over=raw.get("is_over", True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationState:
    """The ablation, begun or finished.

    Args:
        trials_asked: trials of the search that its policies were chosen from.
        seeds: that every component is measured with.
        results: one for each component.
    """

    trials_asked: int
    seeds: tuple[int, ...]
    results: tuple[AblationResult, ...]

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form."""
        rows = [config.to_plain(result) for result in self.results]
        return {"trials_asked": self.trials_asked, "seeds": list(self.seeds), "rows": rows}

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> AblationState:
        """Read what `to_mapping` wrote."""
        results = tuple(config.build(AblationResult, row) for row in raw["rows"])
        return cls(trials_asked=raw["trials_asked"], seeds=tuple(raw["seeds"]), results=results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is known of a study beside its tables.

    Args:
        run_id: name of the study.
        status: the stage that it is in: `reference`, `search`, `verification`, `ablation`, `export`,
            `finished`.
        task: content hash of the task.
        created: when it began, in UTC, as ISO 8601.
        study: the resolved input.
        elapsed_s: seconds that its driver has run, over all starts.
        starts: of its driver.
        rounds: of verification.
        command: that goes on with it; empty where it was started from Python, null before its first start.
        versions: of Python and the packages that results depend on, at the latest start.
        hardware: of the driver's machine, likewise.
        facts: of the task, once they are known.
        data: which data, likewise.
        code: content hashes of the user's own code that the study runs, by name; none where an older version began it.
        batching: how its runs cut phases into batches, `policy.BATCHING` of the version that began it.
        target: the worst validation metric that still counts as matched, once the reference is known.
        noise: spread of the reference's metric over seeds, likewise.
        test_chance: metric of the best constant answer on the test split, likewise; null in studies of before.
        search: counts of the search, once it is over.
        sampler: that the search used, likewise.
        needs: by arm, between which shares of the reference's compute the least that matches lies, as the search sees
            it on the validation split: `{"full": [0.18, 0.31]}`; empty where it gave none.
        winner: name of the candidate that is exported; null where none passed, or before verification is over.
        ablation: of the components; null where there was none yet.
        trials_asked: trials that a finished study was asked for.
        bundle: where the bundle was written.
        interrupted: whether its driver was interrupted, and has not come back.
        failure: the error that ended its latest start; empty where none did.
        sampled: by candidate, its difference to the reference where other test examples are drawn, too; empty in
            studies of before, and before verification is over.
        confirmations: of policies that it exported, with fresh seeds, one for each.
        known_before: what was taken of earlier studies before the first trial.
        place: the how many-th study it is that was verified on this test split, as far as its machine knows; null in
            studies of before, and until it has got there.
    """

    run_id: str
    status: str
    task: str
    created: str
    study: Study
    elapsed_s: float = 0.0
    starts: tuple[Start, ...] = ()
    rounds: tuple[RoundState, ...] = ()
    command: str | None = None
    versions: FrozenDict = FrozenDict()
    hardware: FrozenDict = FrozenDict()
    facts: TaskFacts | None = None
    data: DataOrigin | None = None
    code: FrozenDict = FrozenDict()
    batching: int = BATCHING
    target: float | None = None
    noise: float | None = None
    test_chance: float | None = None
    search: FrozenDict = FrozenDict()
    sampler: str | None = None
    needs: FrozenDict = FrozenDict()
    winner: str | None = None
    ablation: AblationState | None = None
    trials_asked: int = 0
    bundle: str | None = None
    interrupted: bool = False
    failure: str = ""
    sampled: Mapping[str, SampledDifference] = FrozenDict()
    confirmations: tuple[Confirmation, ...] = ()
    place: int | None = None
    known_before: tuple[KnownBefore, ...] = ()

    @property
    def confirmation(self) -> Confirmation | None:
        """Of the policy that is exported; None where nobody has asked for it."""
        return next((one for one in self.confirmations if one.candidate == self.winner), None)

    @property
    def candidates(self) -> dict[str, Candidate]:
        """Those of all rounds, in their order; names are unique across rounds."""
        return {name: candidate for r in self.rounds for name, candidate in r.candidates.items()}

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Likewise."""
        return {name: verdict for r in self.rounds for name, verdict in r.verdicts.items()}

    @property
    def contrasts(self) -> dict[str, Contrast]:
        """Likewise, by name of the control."""
        return {name: contrast for r in self.rounds for name, contrast in r.contrasts.items()}

    def round_of(self, name: str) -> int | None:
        """The how many-th round a candidate is of, from 1; None where there is one round alone, or none has it."""
        rounds = self.rounds if len(self.rounds) > 1 else ()
        return next((number for number, r in enumerate(rounds, 1) if name in r.candidates), None)

    @property
    def ablation_results(self) -> dict[Component, AblationResult]:
        """By component; none where there was no ablation."""
        return {} if self.ablation is None else {result.component: result for result in self.ablation.results}

    @property
    def origin(self) -> dict[str, Any]:
        """Versions, hardware and data, plain, as far as they are known: where the numbers come from."""
        plain = self.to_mapping()
        plain.get("data", {}).pop("warnings", None)  # which a report tells by themselves
        return {key: plain[key] for key in ORIGIN_KEYS if key in plain}

    @property
    def data_warnings(self) -> tuple[str, ...]:
        """Sentences about the data to read before a number is believed."""
        return () if self.data is None else self.data.warnings

    @property
    def details(self) -> dict[str, Any]:
        """What else is known, plain: all but the origin, the study, its command, verification and ablation."""
        plain = {key: value for key, value in self.to_mapping().items() if key not in SHOWN_ELSEWHERE}
        if self.facts is not None and self.facts.unit != "FLOP":
            plain["facts"] = {key: value for key, value in plain["facts"].items() if not key.endswith("_flops")}
        return plain

    def to_mapping(self) -> dict[str, Any]:
        """Its JSON form: what is not known yet is left out."""
        plain: dict[str, Any] = {
            "schema": MANIFEST_SCHEMA,
            "run_id": self.run_id,
            "status": self.status,
            "task": self.task,
            "created": self.created,
            "elapsed_s": self.elapsed_s,
            "starts": [{"at": start.at, "command": start.command} for start in self.starts],
            "rounds": [round_state.to_mapping() for round_state in self.rounds],
            "study": config.to_plain(self.study),
            "winner": self.winner,
            "batching": self.batching,
        }
        for name in ("command", "facts", "target", "noise", "test_chance", "sampler", "bundle", "place"):
            if getattr(self, name) is not None:
                plain[name] = config.to_plain(getattr(self, name))
        told_if_any = ("versions", "hardware", "code", "search", "needs", "trials_asked", "interrupted", "sampled")
        for name in (*told_if_any, "failure", "known_before"):
            if getattr(self, name):
                plain[name] = config.to_plain(getattr(self, name))
        if self.data is not None:
            plain["data"] = self.data.to_mapping()
        if self.ablation is not None:
            plain["ablation"] = self.ablation.to_mapping()
        if self.confirmations:
            plain["confirmations"] = [one.to_mapping() for one in self.confirmations]
        return plain

    def to_json(self) -> bytes:
        """The file."""
        return json.dumps(self.to_mapping(), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing or damaged; `OtherSchemaError` for another version.
        """
        raw = json.loads(text)
        if raw["schema"] != MANIFEST_SCHEMA:
            raise OtherSchemaError(raw["schema"])
        known: dict[str, Any] = {key: raw[key] for key in ("run_id", "status", "task", "created", "elapsed_s")}
        numbers = ("target", "noise", "test_chance", "trials_asked")
        for name in ("command", *numbers, "sampler", "winner", "bundle", "interrupted", "failure", "place"):
            if name in raw:
                known[name] = raw[name]
        for name in ("versions", "hardware", "code", "search", "needs"):
            known[name] = FrozenDict(raw.get(name, {}))
        ablation = raw.get("ablation", raw.get(former_names.ABLATION))
        if ablation is not None:
            known["ablation"] = AblationState.from_mapping(ablation)
        known["batching"] = raw.get("batching", FORMER_BATCHING)
        known["status"] = former_names.ROLES.get(known["status"], known["status"])
        if "data" in raw:
            known["data"] = DataOrigin.from_mapping(raw["data"])
        if "facts" in raw:
            known["facts"] = config.build(TaskFacts, raw["facts"])
        return cls(
            **known,
            study=config.build(Study, former_names.without_objective(raw["study"])),
            starts=tuple(Start(at=start["at"], command=start.get("command", "")) for start in raw["starts"]),
            rounds=tuple(RoundState.from_mapping(plain) for plain in raw["rounds"] if plain),
            sampled=FrozenDict({n: config.build(SampledDifference, one) for n, one in raw.get("sampled", {}).items()}),
            confirmations=tuple(Confirmation.from_mapping(plain) for plain in raw.get("confirmations", ())),
            known_before=tuple(config.build(KnownBefore, plain) for plain in raw.get("known_before", ())),
        )


class OtherSchemaError(ValueError):
    """Another version wrote the manifest; `schema` is its number."""

    def __init__(self, schema: object) -> None:
        super().__init__(f"schema {schema!r}")
        self.schema = schema
