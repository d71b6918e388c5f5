"""Records of a study: one row for each training, the same columns for every role."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from subsettune import config, former_names
from subsettune.config import FrozenDict, must, setting
from subsettune.errors import ConfigError
from subsettune.ledger import Ledger
from subsettune.policy import Policy
from subsettune.train.result import CurvePoint, PhaseSpent

Role = Literal["reference", "trial", "verification", "ablation", "confirmation"]
TABLE_SCHEMA = b"1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One training of a study.

    Args:
        name: unique in the study, e.g. `trial-0007`, `reference-seed-3`, `candidate-1-seed-3`.
        role: why it was trained.
        number: of the trial; -1 for other roles.
        candidate: of a verification or confirmation run: the name of the candidate; of an ablation run: the component;
            else empty.
        policy: what was followed.
        coordinates: of a trial, as the search proposed them.
        seed: of the run.
        confirms: the trial that this one repeats with another seed, or null.
        cause: `failed` when no result came back after the retry; `message` and `log` say why and where.
        metric: on the validation split, or null.
        test_metric: on the test split, verification and confirmation only.
        num_test: test examples that the next two tell of; 0 where nothing is kept of them.
        test_correct: of a classification, a bit an example of the test split, as in `RunResult`.
        test_errors: of a regression, a float32 an example, likewise.
        share_used: of the policy's own compute.
        cost_flops: what the policy was known to cost before it ran.
        ledger: FLOPs spent, by purpose.
        repeated_flops: lost to interruptions.
        shared_flops: of the ledger, what another trial had spent on the stem that this one began from.
        shared_s: seconds of that, likewise in those below.
        train_s: seconds in updates.
        select_s: seconds in selection.
        evaluate_s: seconds in evaluation.
        overhead_s: wall-clock seconds of the trial outside training, selection and evaluation.
        started_s: seconds since the study began (its first start).
        finished_s: likewise.
        cached: of a reference run: taken from the cache of an earlier study.
        is_stop_audit: a trial that the search would have stopped and let run on, to measure false stops.
        phases: what the updates of each phase took; none of a run without a result, or of an earlier version.
        curve: points of its learning curve.
    """

    name: str
    role: Role
    number: int = -1
    candidate: str = ""
    policy: Policy
    coordinates: FrozenDict = setting(FrozenDict())
    seed: int
    confirms: int | None = None
    cause: Literal["finished", "stopped", "diverged", "failed"]
    message: str = ""
    log: str = ""
    metric: float | None = None
    test_metric: float | None = None
    num_test: int = 0
    test_correct: bytes | None = None
    test_errors: bytes | None = None
    share_used: float = 1.0
    cost_flops: int
    ledger: Ledger = setting(Ledger())
    repeated_flops: int = 0
    shared_flops: int = 0
    shared_s: float = 0.0
    train_s: float = 0.0
    select_s: float = 0.0
    evaluate_s: float = 0.0
    overhead_s: float = 0.0
    started_s: float = 0.0
    finished_s: float = 0.0
    cached: bool = False
    is_stop_audit: bool = False
    phases: tuple[PhaseSpent, ...] = ()
    curve: tuple[CurvePoint, ...] = ()

    def __post_init__(self) -> None:
        config.check(self)
        for name, num_bytes in (("test_correct", -(-self.num_test // 8)), ("test_errors", 4 * self.num_test)):
            kept: bytes | None = getattr(self, name)
            if kept is not None and len(kept) != num_bytes:
                rule = f"{num_bytes} bytes long, for {self.num_test} test examples"
                raise ConfigError(must(name, rule, f"{len(kept)} bytes"))

    @property
    def seconds(self) -> float:
        """Seconds that the policy pays: selection and training."""
        return self.train_s + self.select_s

    @property
    def study_flops(self) -> int:
        """FLOPs that the study pays for it: evaluation and repeated work included, what others had spent left out."""
        return self.ledger.total + self.repeated_flops - self.shared_flops

    @property
    def study_s(self) -> float:
        """Seconds of training, selection and evaluation that the study pays for it."""
        return self.seconds + self.evaluate_s - self.shared_s


_CURVE = pa.struct(
    [
        ("share", pa.float64()),
        ("flops", pa.int64()),
        ("phase", pa.int64()),
        ("metric", pa.float64()),
        ("loss", pa.float64()),
        ("seconds", pa.float64()),
        ("select", pa.int64()),
        ("forward", pa.int64()),
    ]
)
_PHASE = pa.struct([("flops", pa.int64()), ("seconds", pa.float64())])
_ADDED = b"subsettune.added"
_LEDGER = ("select", "forward", "backward", "evaluate")
_JSON = ("policy", "coordinates")
_BINARY = ("test_correct", "test_errors")
_NEW = ("num_test", *_BINARY, "phases", "shared_flops", "shared_s")  # columns that tables of version 0.1 lack
_COLUMNS = {"is_stop_audit": "run_out"}  # fields whose column has the name that its first version gave it
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("name", "role", "candidate", "policy", "coordinates", "cause", "message", "log"), pa.string()),
    **dict.fromkeys(("number", "seed", "confirms", "num_test"), pa.int64()),
    **dict.fromkeys(("cost_flops", "repeated_flops", "shared_flops"), pa.int64()),
    **dict.fromkeys(_BINARY, pa.binary()),
    **dict.fromkeys(("metric", "test_metric", "share_used"), pa.float64()),
    **dict.fromkeys(("train_s", "select_s", "evaluate_s", "shared_s"), pa.float64()),
    **dict.fromkeys(("overhead_s", "started_s", "finished_s"), pa.float64()),
    **dict.fromkeys(("cached", "run_out"), pa.bool_()),
    "phases": pa.list_(_PHASE),
    "curve": pa.list_(_CURVE),
}


def _column(field: str) -> str:
    return _COLUMNS.get(field, field)


SCHEMA = pa.schema(
    [(_column(name), _TYPES[_column(name)]) for name in RunRecord.__dataclass_fields__ if name != "ledger"]
    + [(f"{purpose}_flops", pa.int64()) for purpose in _LEDGER],
    metadata={b"subsettune.schema": TABLE_SCHEMA},
)


def to_table(records: Sequence[RunRecord], added: int = 0) -> pa.Table:
    """Records as a table that any Parquet reader understands: one column a number, policies as JSON text.

    Args:
        records: the rows.
        added: see `num_added`.
    """
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, _ADDED: str(added).encode()}) if added else SCHEMA
    return pa.Table.from_pylist([_row(record) for record in records], schema=schema)


def num_added(table: pa.Table) -> int:
    """How many rows were ever added to a study's table when it was written: the number of the next."""
    return int((table.schema.metadata or {}).get(_ADDED, 0))


def to_row(record: RunRecord) -> dict[str, Any]:
    """A record as JSON has it: a row of the table, with bytes in base64."""
    row = _row(record)
    binary = {name: row[name] for name in _BINARY if row[name] is not None}
    return row | {name: base64.b64encode(content).decode() for name, content in binary.items()}


def from_row(row: Mapping[str, Any]) -> RunRecord:
    """Read what `to_row` made.

    Raises:
        ConfigError, KeyError, TypeError, ValueError: it does not describe a run.
    """
    texts = {name: row[name] for name in _BINARY if row.get(name) is not None}
    return _record({**row, **{name: base64.b64decode(text, validate=True) for name, text in texts.items()}})


def from_table(table: pa.Table) -> tuple[RunRecord, ...]:
    """Read what `to_table` wrote.

    Raises:
        ConfigError: a row does not describe a run.
    """
    return tuple(_record(row) for row in table.to_pylist())


def count(records: Iterable[RunRecord]) -> Counter[str]:
    """How many runs ended by each cause."""
    return Counter(record.cause for record in records)


def _row(record: RunRecord) -> dict[str, Any]:
    row = {_column(name): config.to_plain(getattr(record, name)) for name in RunRecord.__dataclass_fields__}
    ledger = row.pop("ledger")
    row |= {name: json.dumps(row[name], sort_keys=True) for name in _JSON}
    row |= {name: getattr(record, name) for name in _BINARY}
    return row | {f"{purpose}_flops": ledger[purpose] for purpose in _LEDGER}


def _record(row: dict[str, Any]) -> RunRecord:
    names = [name for name in RunRecord.__dataclass_fields__ if name != "ledger" and (name in row or name not in _NEW)]
    plain = {name: row[_column(name)] for name in names}
    plain |= {name: json.loads(row[name]) for name in _JSON}
    plain["role"] = former_names.ROLES.get(plain["role"], plain["role"])
    plain["coordinates"] = former_names.current_point(plain["coordinates"])
    ledger = {purpose: row[f"{purpose}_flops"] for purpose in _LEDGER}
    return config.build(RunRecord, {**plain, "ledger": ledger})
