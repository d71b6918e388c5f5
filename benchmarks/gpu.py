"""Checks and measures training on a GPU, in one command and under eight minutes: a table, and a JSON with all numbers.

Each part runs in a process of its own with a time budget, and each of its cases by itself: one that fails, hangs, or
breaks the device hides no other. It needs torch, torchvision, NumPy and pyarrow, and neither Ray nor Optuna. Without a
GPU it says so, and runs the same checks on the processor with small sizes.

example:
    PYTHONPATH=. python benchmarks/gpu.py --out gpu.json
    PYTHONPATH=. python benchmarks/gpu.py --only throughput --only memory

Exit code: 0, or 1 where a check failed, a goal was missed, or a part did not come to its end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from gpu_parts import PARTS
from gpu_parts.kit import Finding, Kit, Part

Status = Literal["passed", "failed", "measured"]
BROKEN_DEVICE = 70  # exit code of a process whose device answers nothing any more: the other cases need a fresh one
OUT_OF_TIME = "the time of the part was spent"
SLACK = 4  # times the budgets on a processor, which others may use as well
SHOWN = 25  # last lines of what a process that died had to say
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "subsettune")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a case.

    Args:
        case: its name within the part.
        status: `measured` where nothing was checked.
        words: one line.
        numbers: of the finding.
        seconds: that it took.
        trace: of what was raised; empty otherwise.
    """

    case: str
    status: Status
    words: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    trace: str = ""

    @classmethod
    def of(cls, case: str, finding: Finding, seconds: float) -> Row:
        """A case that came to its end."""
        status: Status = "measured" if finding.passed is None else "passed" if finding.passed else "failed"
        return cls(case=case, status=status, words=finding.words, numbers=finding.numbers, seconds=seconds)

    @property
    def plain(self) -> dict[str, Any]:
        """For the JSON."""
        told = {name: getattr(self, name) for name in ("case", "status", "words", "numbers", "seconds", "trace")}
        return {name: value for name, value in told.items() if name != "trace" or value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part."""

    part: Part
    rows: Sequence[Row]
    seconds: float

    @property
    def status(self) -> Status:
        """Failed where one case is, or where there is none."""
        statuses = {row.status for row in self.rows}
        if "failed" in statuses or not statuses:
            return "failed"
        return "passed" if "passed" in statuses else "measured"

    @property
    def words(self) -> str:
        """The line of the table; cases that failed follow below it."""
        ended = [row.numbers for row in self.rows if row.numbers]
        failed = sum(row.status == "failed" for row in self.rows)
        told = self.part.words(ended) if ended else "no case came to its end"
        return f"{failed} of {len(self.rows)} cases failed; {told}" if failed else told

    @property
    def plain(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "part": self.part.name,
            "about": self.part.about,
            "status": self.status,
            "words": self.words,
            "seconds": round(self.seconds, 2),
            "budget_s": self.part.budget_s,
            "cases": [row.plain for row in self.rows],
        }


# --- the process of a part --------------------------------------------------------------------------------------------


def carry_out(part: Part, kit: Kit, path: Path) -> int:
    """Run the cases that are not in the file yet, and add each to it when it begins and when it ends."""
    if part.exact:
        exact_float32()
    if kit.small:
        torch.set_num_threads(1)  # two that others hold up take ten times as long as one
    begun = {told["begun"] for told in read(path) if "begun" in told}
    cases = part.cases(kit)
    tell(path, {"cases": list(cases)})
    for name, case in cases.items():
        if name in begun:
            continue
        tell(path, {"begun": name})
        start = time.perf_counter()
        try:
            row = Row.of(name, case(), time.perf_counter() - start)
        except Exception as error:  # whatever it is, the next case is to be tried
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            seconds, trace = time.perf_counter() - start, traceback.format_exc()
            row = Row(case=name, status="failed", words=words, seconds=seconds, trace=trace)
        tell(path, {"row": row.plain})
        if row.status == "failed" and kit.is_gpu and not device_answers():
            return BROKEN_DEVICE
    return 0


def exact_float32() -> None:
    """Products of float32 numbers as they are, and not of their first ten bits: what is compared is our code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of torch have another name for it beside this one
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def device_answers() -> bool:
    """Whether the card still works for this process: a kernel that failed takes all later ones with it."""
    try:
        torch.cuda.synchronize()
        return bool(torch.ones(1, device="cuda").sum().item() == 1)
    except Exception:
        return False


def tell(path: Path, told: Mapping[str, Any]) -> None:
    """Add a line to the file that the command reads."""
    with path.open("a") as file:
        file.write(json.dumps(told) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of that file; one that was cut off is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


# --- the command ------------------------------------------------------------------------------------------------------


def follow(part: Part, kit: Kit) -> Outcome:
    """Start the process of a part, again where it died with cases left, until all are done or the budget is spent."""
    path, log = (kit.folder / f"{part.name}.{ending}" for ending in ("jsonl", "log"))
    start, budget_s = time.monotonic(), part.budget_s * (1 if kit.is_gpu else SLACK)
    ended: dict[str, str] = {}  # cases in which a process ended, and how
    while True:
        before = len(read(path))
        why = started(part, kit, path, log, start + budget_s - time.monotonic())
        told = read(path)
        rows = {line["row"]["case"]: Row(**line["row"]) for line in told if "row" in line}
        begun = [line["begun"] for line in told if "begun" in line]
        ended |= {name: why or "no row was written" for name in begun if name not in rows and name not in ended}
        if why is None or why == OUT_OF_TIME or len(told) <= before + 1:  # it did not come to a case
            break
    cases = next((line["cases"] for line in told if "cases" in line), ["start"])
    for name in cases:
        if name not in rows:
            words = f"ended: {ended[name]}" if name in ended else f"not begun: {why}"
            rows[name] = Row(case=name, status="failed", words=words, trace=last_lines(log))
    return Outcome(part=part, rows=[rows[name] for name in cases], seconds=time.monotonic() - start)


def started(part: Part, kit: Kit, path: Path, log: Path, budget_s: float) -> str | None:
    """Run the process of a part; None where it came to its end, else why it did not."""
    asked = ["--only", part.name, "--rows", str(path), "--folder", str(kit.folder), "--device", kit.device]
    command = [sys.executable, str(Path(sys.argv[0]).resolve()), *asked, *(["--quick"] if kit.small else [])]
    environment = {**os.environ, "SUBSETTUNE_CACHE": str(kit.folder / "cache")}
    with log.open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            code = process.wait(max(budget_s, 0.0))
        except subprocess.TimeoutExpired:
            return OUT_OF_TIME
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
    if code in (0, BROKEN_DEVICE):
        return None if code == 0 else "the device answered nothing any more"
    return f"its process died of {signal.Signals(-code).name}" if code < 0 else f"its process ended with code {code}"


def last_lines(log: Path) -> str:
    """Of what a process had to say."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-SHOWN:]) if log.exists() else ""


def machine(kit: Kit) -> dict[str, Any]:
    """Hardware and versions, as a number is told with them."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    versions |= {"torch": torch.__version__}
    found: dict[str, Any] = {"processor": processor(), "cores": os.cpu_count(), "gpu": None}
    if kit.is_gpu:
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_memory_bytes": card.total_memory}
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return {"hardware": found, "versions": versions}


def processor() -> str:
    """Its name where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown that also reads well in a terminal; below it the cases that failed."""
    head = ("part", "result", "found", "seconds")
    lines = [(o.part.name, o.status, o.words, f"{o.seconds:.0f}") for o in outcomes]
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(3)]
    rule = ("-" * widths[0], "-" * widths[1], "-" * widths[2], "------:")
    padded = [[cell.ljust(w) for cell, w in zip(line, (*widths, 7), strict=True)] for line in (head, rule, *lines)]
    failed = [f"{o.part.name}, {r.case}: {r.words}" for o in outcomes for r in o.rows if r.status == "failed"]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in padded), *([""] if failed else []), *failed])


def where(told: Mapping[str, Any]) -> str:
    """One line on the machine."""
    hardware, versions = told["hardware"], told["versions"]
    first = hardware["gpu"] or "no GPU: the same checks on the processor, with small sizes"
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{first}; {hardware['cores']} cores of {hardware['processor']}; {names}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about = "; ".join(f"{part.name}: {part.about}" for part in PARTS.values())
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"may be repeated. {about}")
    parser.add_argument("--quick", action="store_true", help="small sizes, as without a GPU; no goal is judged")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="of the JSON; default: %(default)s")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: %(default)s")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # of a part, by the command itself
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("device must be auto or cpu here, got 'cuda': torch finds no GPU.")
    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """The command, or the process of one part."""
    given = parse(arguments)
    parts = [part for name, part in PARTS.items() if given.only is None or name in given.only]
    small = given.quick or given.device == "cpu"
    if given.rows is not None:
        return carry_out(parts[0], Kit(device=given.device, small=small, folder=given.folder), given.rows)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kit = Kit(device=given.device, small=small, folder=Path(folder))
        told = machine(kit)
        print(where(told), flush=True)
        outcomes = []
        for part in parts:
            outcomes.append(follow(part, kit))
            print(f"{part.name}: {outcomes[-1].status} in {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    plain = {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        **told,
        "device": kit.device,
        "small": kit.small,
        "seconds": round(time.monotonic() - start, 1),
        "failed": [f"{o.part.name}, {r.case}" for o in outcomes for r in o.rows if r.status == "failed"],
        "parts": [outcome.plain for outcome in outcomes],
    }
    given.out.write_text(json.dumps(plain, indent=2) + "\n")
    print(f"\n{table(outcomes)}\n\n{len(outcomes)} parts in {plain['seconds']} s; all numbers: {given.out}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
