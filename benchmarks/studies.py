"""Is a study worth its cost? What it finds, how often it is right, and what it spends, beside what people do by hand.

    python benchmarks/studies.py --quick                         two splits, few repeats: a look, some minutes
    python benchmarks/studies.py                                 everything; about an hour on 2 cores
    python benchmarks/studies.py --measure studies --measure level
    python benchmarks/studies.py --tables make --data-root DIR   train the tables anew: about half an hour of one core

On 24 splits of scikit-learn's digits every run is carried out (the task and space of search_spaces/digits.yaml, mlp, 30
passes, tolerance 0.01; the seed of the split is that of the study, too). Where thousands of studies are needed, the
product's own driver, search and verification run on *tables*, made once (benchmarks/tables): each policy of a space of
lists, trained with 40 seeds, on two splits of the digits and on small parts of MNIST, Adult and TREC. There a run is
looked up, and a policy's mean over all columns counts as its true one. Studies on the tables of MNIST, Adult and TREC
need their data (`--data-root`: MNIST/raw as torchvision has it, adult and trec as benchmarks/convert writes them), for
a study reads its data before it trains; without them these tables are left out, and it says so.

What is measured (`--measure`, any number of times):

studies     A study on each split, beside a plain grid (3 rates, 6 budgets) of which every policy is tested as in a
            study, by 10 seeds at level alpha each: on how many splits where the grid holds a policy that passes the
            study verifies one; the cost of the policy found over that of the grid's cheapest; what the study spent, in
            conventional trainings, by its own ledger, reference, evaluation and ablation included, and in which stage;
            what verification said of each policy; and how often the policy found is
            truly within the tolerance: mean difference of 20 fresh seeds. On the same splits, by the same measure: the
            grid tested, the grid with one seed, random search with as many trials, and Optuna's TPE with the objective
            that people hand to Ray Tune's OptunaSearch (compute, plus a penalty below the target). These believe the
            validation split and one seed.
tables      The same on each table, over many repeats: each draws its columns anew. Cost is over that of the cheapest
            policy that is truly within the tolerance.
placebo     Studies on digits with a component that does nothing: subsets of 99.5 % of the data, drawn at random, with
            the recipe's batches and with half as large ones; and the uniform order under another name. How many
            headlines say that a policy that has it is better than plain training of equal compute: each is false.
            Beside it, how many export such a policy without saying so.
bundles     Five studies of one task on one test split, all policies shifted so that their true test difference is
            minus the tolerance exactly, each seed drawing its column anew: how often any of the five exports a policy,
            which is false then, and how often one is confirmed with fresh seeds, too. Also with the unchanged recipe at
            the largest budget spared, which a study may export.
level       Each policy of each table at the margin, its runs drawn with replacement beside their reference's: how often
            the product's test passes it, with the looks and the level that it has as the first candidate, and with
            those of a last resort that has the whole level. The worst policy, and how many are shown to be above alpha.
ray         One search with Ray Tune and OptunaSearch itself, on split 0: that it gives what Optuna alone gives.

Shares have exact intervals (Clopper and Pearson), medians bootstrap ones, 95 % each. What is in `--out` is not done
again: use another folder after a change of the code.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import completed
from studies_parts import measures, splits, tables, tasks, words
from studies_parts.splits import Work

from subsettune.data import DataPaths
from subsettune.policy import SUBSET
from subsettune.study.spec.space import Space
from subsettune.study.verification.candidates import SHARES
from subsettune.study.verification.noninferiority import allot

QUICKER = {"splits": 2, "repeats": 10, "placebos": 6, "groups": 2}  # numbers at most, for a look
PLACEBO_HEAD = ("", "wins claimed, of all", "of those that verified a policy", "exported without", "spent: median")
LEVEL_HEAD = ("table, level", "policies", "median", "worst policy", "shown to be above alpha", "its shape")
SPLIT_HEAD = ("split", "cost", "grid's cheapest", "true difference", "spent, by stage", "verification")
HEAD = ("", "found", "within the tolerance", "cost over the cheapest: median", "worst", "spent: median")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for.

    Args:
        tables: names of those to make or to use.
        num_splits: of the digits.
        repeats: on each table.
        placebos: studies of each kind.
        groups: of five studies, on each table of the digits.
        draws: simulated verifications of each policy.
        processes: at a time.
        trials: of each search on the splits.
        data_root: of the data that small tasks are cut from; None where there are none.
        out: folder of what is kept.
        folder: of the tables.
    """

    tables: tuple[str, ...]
    num_splits: int
    repeats: int
    placebos: int
    groups: int
    draws: int
    processes: int
    trials: int
    data_root: Path | None
    out: Path
    folder: Path

    @property
    def places(self) -> DataPaths:
        """Where the small data sets lie, once `write_small` has cut them out."""
        root = None if self.data_root is None else str(self.out / "data")
        return DataPaths(data_root=root, cache=str(self.out / "cache"))

    @property
    def studied(self) -> tuple[str, ...]:
        """Tables whose data are here: a study reads them before it trains."""
        has_data = self.data_root is not None
        return tuple(name for name in self.tables if has_data or name.startswith("digits"))


def main(argv: Sequence[str] | None = None) -> None:
    """Parse and print."""
    given, start_s = _parser().parse_args(argv), time.monotonic()
    options = _options(given)
    if options.data_root is not None:
        tasks.write_small(options.data_root, options.out / "data")
    left = [name for name in options.tables if name not in options.studied]
    if left:
        print(f"Without --data-root nothing is trained or studied for the tables {', '.join(left)}.")
    if given.tables == "make":
        make_tables(options)
        return
    for name in given.measure or SHOWN:
        print(f"\n## {name}\n\n{SHOWN[name](options)}", flush=True)
    print(f"\n{(time.monotonic() - start_s) / 60:.0f} minutes, {options.processes} processes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 splits, 10 repeats, 6 placebos, 2 groups")
    parser.add_argument("--measure", action="append", choices=tuple(SHOWN), help="default: all")
    parser.add_argument("--tables", choices=("make", "use"), default="use")
    parser.add_argument("--only", action="append", choices=tuple(tasks.BENCHES), help="tables to make or to use")
    parser.add_argument("--splits", type=int, default=tasks.NUM_SPLITS)
    parser.add_argument("--repeats", type=int, default=100, help="on each table (default 100)")
    parser.add_argument("--placebos", type=int, default=80, help="studies of each kind (default 80)")
    parser.add_argument("--groups", type=int, default=60, help="of five studies on each table of digits (default 60)")
    parser.add_argument("--trials", type=int, default=splits.TRIALS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/studies"))
    parser.add_argument("--tables-folder", type=Path, default=tables.FOLDER)
    return parser


def _options(given: argparse.Namespace) -> Options:
    counts = {name: min(getattr(given, name), QUICKER[name] if given.quick else sys.maxsize) for name in QUICKER}
    return Options(
        tables=tuple(given.only or tasks.BENCHES),
        num_splits=counts["splits"],
        repeats=counts["repeats"],
        placebos=counts["placebos"],
        groups=counts["groups"],
        draws=2_000 if given.quick else 20_000,
        processes=given.processes,
        trials=given.trials,
        data_root=given.data_root,
        out=given.out,
        folder=given.tables_folder,
    )


def make_tables(options: Options) -> None:
    """Train the tables, and write each."""
    for name in options.studied:
        start_s = time.monotonic()
        bench = tasks.tabled(name)
        known = tables.Known.of(bench.study.task, options.places)
        policies = tables.policies_of(Space.from_mapping(bench.study.space), known.task, known.facts)
        rows = tables.make(
            known,
            policies,
            bench.num_columns,
            options.places,
            processes=options.processes,
            kept=options.out / "rows" / name,
        )
        path = options.folder / f"{name}.parquet"
        tables.write(path, known, rows)
        size, took_s = path.stat().st_size / 1024, time.monotonic() - start_s
        print(f"{path}: {len(rows)} policies, {bench.num_columns} seeds, {size:.0f} KiB, {took_s:.0f} s", flush=True)


# --- on the splits ----------------------------------------------------------------------------------------------------


def studies(options: Options) -> str:
    """A study, the grid, and the searches by hand on each split."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in ("by hand", "study"):
        asked = [_work(kind, split, split, options) for split in range(options.num_splits)]
        for row in _done(asked, options.processes):
            found.setdefault(row.get("name", "study"), []).append(row)
    grid = {row["split"]: row["cost"] for row in found["grid, tested"]}
    rows = [_summed(name, found[name], grid) for name in ("study", *(n for n in found if n != "study"))]
    has_one = [split for split, cost in grid.items() if cost is not None]
    verified = sum(row["cost"] is not None for row in found["study"] if row["split"] in has_one)
    return (
        f"{words.table(HEAD, rows)}\n\n"
        f"Verified a policy where the grid has one that passes: {words.share(verified, len(has_one))}. Cost is over "
        "that of the grid's cheapest; spent in conventional trainings; within the tolerance by "
        f"{splits.NUM_FRESH} fresh seeds.\n\n{_of_stages([row['stages'] for row in found['study']])}\n\n"
        f"{words.table(SPLIT_HEAD, [_of_split(row, grid[row['split']]) for row in found['study']])}"
    )


def _of_stages(spent: Sequence[Mapping[str, float]]) -> str:
    """Where the compute of studies goes."""
    names = list(dict.fromkeys(name for stages in spent for name in stages))
    costs = {name: [stages[name] for stages in spent] for name in names}
    rows = [(name, words.median(costs[name]), f"{max(costs[name]):.3g}") for name in names if any(costs[name])]
    return words.table(("stage of a study", "spent: median", "most"), rows)


def _of_split(row: Mapping[str, Any], least: float | None) -> tuple[str, ...]:
    """What a study came to, for whoever asks why."""
    cost, truth = row["cost"], row["truth"]
    stages = " + ".join(f"{spent:.1f}" for spent in row["stages"].values() if spent)
    return (
        str(row["split"]),
        "-" if cost is None else f"{cost:.3f}",
        "-" if least is None else f"{least:.3f}",
        "-" if truth is None else f"{truth:+.4f}",
        f"{row['spent']:.1f} ({stages})",
        "; ".join(f"{name} {said}" for name, said in row["outcomes"].items()),
    )


def _summed(name: str, rows: Sequence[dict[str, Any]], grid: dict[int, float | None]) -> tuple[str, ...]:
    """A line of the table: of those that found a policy, how many are right; costs where the grid has one, too."""
    found = [row for row in rows if row["cost"] is not None]
    ratios = [row["cost"] / least for row in found if (least := grid[row["split"]]) is not None]
    right = sum(row["truth"] >= -_tolerance() for row in found)
    return (
        name,
        words.share(len(found), len(rows)),
        words.share(right, len(found)),
        words.median(ratios),
        f"{max(ratios):.3g}" if ratios else "-",
        words.median([row["spent"] for row in rows]),
    )


def _tolerance() -> float:
    """The tolerance of the digits."""
    return tasks.digits_study(0).task.tolerance


def _work(kind: str, split: int, seed: int, options: Options, placebo: str = "") -> Work:
    return Work(split=split, seed=seed, kind=kind, out=options.out, placebo=placebo, trials=options.trials)


def _done(asked: Sequence[Work], processes: int) -> list[dict[str, Any]]:
    outcomes = {one.path: rows for one, rows in completed(splits.work, asked, processes)}
    return [row for one in asked for row in outcomes[one.path]]


def placebo(options: Options) -> str:
    """Headlines of a win where there can be none."""
    rows = []
    for kind in tasks.PLACEBOS:
        splits_of = [n % tasks.NUM_SPLITS for n in range(options.placebos)]
        asked = [_work("placebo", split, 1000 + n, options, kind) for n, split in enumerate(splits_of)]
        done = _done(asked, options.processes)
        wins, found = sum(row["claims_win"] for row in done), [row for row in done if row["policy"] is not None]
        silent = sum(row["arm"] == SUBSET and not row["claims_win"] for row in found)
        counts = (words.share(wins, len(done)), words.share(wins, len(found)), words.share(silent, len(done)))
        rows.append((kind, *counts, words.median([row["spent"] for row in done])))
    return words.table(PLACEBO_HEAD, rows)


# --- on the tables ----------------------------------------------------------------------------------------------------


def searches(options: Options) -> str:
    """Studies and searches by hand on each table."""
    parts = []
    for name in options.studied:
        asked = [_asked(name, seed, "search", options) for seed in range(options.repeats)]
        table = tables.read(options.folder / f"{name}.parquet", options.places)
        found = [one for each in measures.carried_out(measures.searches, asked, options.processes) for one in each]
        kinds = dict.fromkeys(one.name for one in found)
        rows = [_of_table(kind, [one for one in found if one.name == kind], table) for kind in kinds]
        best = f"cheapest within the tolerance: {measures.optimum(table):.3g} of the recipe's compute"
        stages = _of_stages([one.stages for one in found if one.stages])
        parts.append(f"{name} ({best})\n\n{words.table(HEAD, rows)}\n\n{stages}")
    return "\n\n".join(parts)


def _of_table(name: str, rows: Sequence[measures.Found], table: tables.Table) -> tuple[str, ...]:
    found = [row for row in rows if not math.isnan(row.truth)]
    right = sum(row.truth >= -table.task.tolerance for row in found)
    costs = [row.cost for row in found if not math.isnan(row.cost)]
    return (
        name,
        words.share(len(found), len(rows)),
        words.share(right, len(found)),
        words.median(costs),
        f"{max(costs):.3g}" if costs else "-",
        words.median([row.spent for row in rows]),
    )


def bundles(options: Options) -> str:
    """False bundles among five studies on one test split."""
    rows = []
    for kind in ("all at margin", "all but the recipe"):
        groups: list[list[tuple[bool, bool]]] = []
        for name in (name for name in options.studied if name.startswith("digits")):
            asked = [_asked(name, seed, kind, options) for seed in range(options.groups)]
            groups += measures.carried_out(measures.false_bundles, asked, options.processes)
        for confirmed in (0, 1):
            single = [[one[confirmed] for one in group] for group in groups]
            flat = [one for group in single for one in group]
            title = f"{kind}{', confirmed with fresh seeds' if confirmed else ''}"
            rows.append((title, words.share(sum(map(any, single)), len(single)), words.share(sum(flat), len(flat))))
    return words.table(("", f"any of {measures.STUDIES_A_TASK} studies", "a study"), rows)


def level(options: Options) -> str:
    """How often the product's test passes a policy at the margin, by the shapes of the tables."""
    rows = []
    for name in options.tables:
        table = tables.read(options.folder / f"{name}.parquet", options.places)
        study = tasks.tabled(name).study
        rules = splits.rules_of(study, table.num_examples["test"], table.reference.validation)
        for share in (SHARES[0], 1.0):
            found = measures.levels(table, rules, share, options.draws, seed=0)
            rows.append(_of_levels(f"{name}, {share * allot(rules.alpha):.3g}", found, rules.alpha))
    return words.table(LEVEL_HEAD, rows)


def _of_levels(name: str, found: Sequence[measures.Level], alpha: float) -> tuple[str, ...]:
    worst = max(found, key=lambda one: one.count / one.repeats)
    above = sum(words.lower(one.count, one.repeats) > alpha for one in found)
    rates = sorted(one.count / one.repeats for one in found)
    return (
        name,
        str(len(found)),
        f"{rates[len(rates) // 2]:.3f}",
        words.share(worst.count, worst.repeats),
        str(above),
        f"spread {worst.spread:.2f}, skew {worst.skew:.1f}, correlation {worst.correlation:.2f}",
    )


def _asked(name: str, seed: int, kind: str, options: Options) -> measures.Asked:
    return measures.Asked(name=name, seed=seed, kind=kind, places=options.places, folder=options.folder)


def ray(options: Options) -> str:
    """Ray Tune with OptunaSearch, beside Optuna alone."""
    from studies_parts.with_ray import both

    return both(options.out, options.trials)


SHOWN: dict[str, Callable[[Options], str]] = {
    "studies": studies,
    "tables": searches,
    "placebo": placebo,
    "bundles": bundles,
    "level": level,
    "ray": ray,
}

if __name__ == "__main__":
    main()
