"""Takes the numbers of a finished demo into README.md and docs/images: `make demo`, and then

    python docs/scripts/demo.py runs/digits-1               the numbers, README's block of them, and the picture
    python docs/scripts/demo.py runs/digits-1 --browser     and a picture of the report, by Chromium

What is kept is docs/images/demo.json; tests hold README and picture against it, and train its policy again.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from doc_pages import PAGES, ROOT, write_between

from subsettune import load_study
from subsettune.report.brief import Where, brief_blocks
from subsettune.report.render import Table, render

IMAGES = PAGES / "images"
NUMBERS = IMAGES / "demo.json"
PICTURE = IMAGES / "demo.svg"
REPORT = IMAGES / "report.png"
README = ROOT / "README.md"
KEPT = ("headline", "metric", "margin", "alpha", "winner", "saving_recipe", "break_even", "tuning_flops", "versions")
WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 34, 46  # of the frame
GREEN, GREY, INK, PALE = "#1a7f5a", "#8a8f98", "#24292f", "#e6f4ee"
MOST_BYTES = 200_000
WORKED = """\
import numpy as np
from scipy import stats

recipe = np.array({recipe}) / {num}  # right answers of each run, of {num} test examples
policy = np.array({policy}) / {num}
least = (0.5 / {num}) ** 2  # a spread of half an example is always allowed for: runs may agree by luck
ours, theirs = ((x.var(ddof=1) + least) / len(x) for x in (policy, recipe))  # variances of the two means
error = np.sqrt(ours + theirs)
freedom = (ours + theirs) ** 2 / (ours**2 / (len(policy) - 1) + theirs**2 / (len(recipe) - 1))
difference = policy.mean() - recipe.mean()
bound = difference - stats.t.isf({level:.6f}, freedom) * error
verdict = "passes" if bound > -{margin:g} else "does not pass"
print(f"difference {{difference:.4f}}, bound {{bound:.4f}}: {{verdict}}")"""


def main() -> None:
    """Read a study and write what is shown of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the finished study")
    parser.add_argument("--browser", action="store_true", help="take a picture of its report, too")
    given = parser.parse_args()
    kept = numbers(given.run)
    NUMBERS.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PICTURE.write_text(picture(kept), encoding="utf-8")
    write_between(README, "demo", f"```\n{told(given.run)}\n```")
    write_between(PAGES / "statistics.md", "worked", worked(kept))
    if given.browser:
        REPORT.write_bytes(screenshot(given.run / "report.html"))


def numbers(run: Path) -> dict[str, Any]:
    """What is kept of a study: the evidence of its bundle as far as it is shown.

    Raises:
        FileNotFoundError: it has no bundle.
    """
    evidence = json.loads((run / "bundle" / "evidence.json").read_text(encoding="utf-8"))
    kept = {key: evidence[key] for key in KEPT}
    rows = [_policy_row(row) for row in evidence["candidates"] if row["runs"]]
    stops = [stop for stop in load_study(run.name, storage=run.parent).summary.early_stops if stop.is_within]
    kept["saving_early_stop"] = max(stop.saving for stop in stops if stop.patience is not None and stop.saving)
    cut = next(stop for stop in stops if stop.look is not None)
    kept["truncated"] = {"look": cut.look, "looks": cut.looks, "flops": cut.flops, "saving": cut.saving}
    kept["num_test"] = evidence["sampled"]["num_examples"]
    return {**kept, "reference": _policy_row(evidence["reference"]), "candidates": rows}


def _policy_row(row: Mapping[str, Any]) -> dict[str, Any]:
    runs = [{"seed": run["seed"], "metric": run["metric"]} for run in row["runs"]]
    kept = {key: row[key] for key in ("name", "passes", "flops", "metric", "passed", "policy", "verdict") if key in row}
    return {**kept, "runs": runs}


def told(run: Path) -> str:
    """The result of a study as far as the table and what is said of it, as `subsettune show` prints it."""
    blocks = brief_blocks(load_study(run.name, storage=run.parent).view, Where())
    at = next(i for i, block in enumerate(blocks) if isinstance(block, Table))
    return render([blocks[0], blocks[at], blocks[at + 1]]).rstrip()


def worked(kept: Mapping[str, Any]) -> str:
    """The test of the exported policy, written out: code that prints its bound, and what it prints."""
    policy, reference, num = winner(kept), kept["reference"], kept["num_test"]
    verdict = policy["verdict"]
    assert not verdict["is_paired"], "the example is of runs that are not paired"
    right = [[round(run["metric"] * num) for run in row["runs"]] for row in (reference, policy)]
    code = WORKED.format(recipe=right[0], policy=right[1], num=num, level=verdict["nominal"], margin=kept["margin"])
    bound, mean = verdict["lower_bound"], verdict["mean_difference"]
    return f"```python\n{code}\n```\n\n```\ndifference {mean:.4f}, bound {bound:.4f}: passes\n```"


def winner(kept: Mapping[str, Any]) -> Mapping[str, Any]:
    """The policy that was exported."""
    found: Mapping[str, Any] = next(row for row in kept["candidates"] if row["name"] == kept["winner"])
    return found


def picture(kept: Mapping[str, Any]) -> str:
    """Runs of the recipe and of the policies that were tested, by compute and accuracy, as SVG."""
    return "\n".join(_Picture(kept).lines()) + "\n"


class _Picture:
    """The picture of a study.

    Args:
        kept: its numbers.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self.kept, self.best, self.reference = kept, winner(kept), kept["reference"]
        rows = (self.reference, *kept["candidates"])
        metrics = [run["metric"] for row in rows for run in row["runs"]]
        self.low, self.high = float(min(metrics)) - 0.004, float(max(metrics)) + 0.006
        self.longest = 1.07 * float(self.reference["passes"])
        self.target = self.reference["metric"] - kept["margin"]

    def lines(self) -> Iterator[str]:
        """The elements, from the back to the front."""
        yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="13"'
        yield ' font-family="system-ui, sans-serif">'
        yield f"<title>{escape(self.kept['headline'])}</title>"
        yield f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>'
        yield from self._frame()
        for row in self.kept["candidates"]:
            is_best = row is self.best
            yield from self._runs(row, GREEN if is_best else GREY)
        yield from self._runs(self.reference, INK)
        yield from self._words()
        yield "</svg>"

    def _frame(self) -> Iterator[str]:
        right, top, bottom = WIDTH - RIGHT, self._y(self.high), HEIGHT - BOTTOM
        target = self._y(self.target)
        yield f'<rect x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{target - top:.1f}" fill="{PALE}"/>'
        yield f'<path d="M{LEFT} {target:.1f}H{right}" stroke="{GREEN}" stroke-dasharray="4 3"/>'
        yield f'<path d="M{LEFT} {top:.1f}V{bottom}H{right}" stroke="{GREY}" fill="none"/>'
        within = f"at most {self.kept['margin']:g} below the recipe's mean"
        yield _text(right - 6, target + 16, within, fill=GREEN, anchor="end")
        for passes in range(0, int(self.longest) + 1, 5):
            yield _text(self._x(passes), bottom + 18, str(passes), anchor="middle", fill=GREY)
        for step in range(int(self.low * 100) + 1, int(self.high * 100) + 1):
            yield _text(LEFT - 8, self._y(step / 100) + 4, f"{step / 100:.2f}", anchor="end", fill=GREY)
        yield _text((LEFT + right) / 2, HEIGHT - 8, "compute of one training, in passes", anchor="middle", fill=GREY)
        yield _text(8, 18, f"test {self.kept['metric']}, a dot a run", fill=GREY)

    def _runs(self, row: Mapping[str, Any], color: str) -> Iterator[str]:
        x, mean = self._x(row["passes"]), self._y(row["metric"])
        for run in row["runs"]:
            yield f'<circle cx="{x:.1f}" cy="{self._y(run["metric"]):.1f}" r="3.5" fill="{color}" fill-opacity="0.55"/>'
        yield f'<path d="M{x - 11:.1f} {mean:.1f}H{x + 11:.1f}" stroke="{color}" stroke-width="3"/>'

    def _words(self) -> Iterator[str]:
        best, reference = self.best, self.reference
        start, end, y = self._x(reference["passes"]) - 16, self._x(best["passes"]) + 18, self._y(best["metric"])
        yield f'<path d="M{start:.1f} {y:.1f}H{end:.1f}m8 -5l-8 5l8 5" stroke="{GREEN}" stroke-width="2" fill="none"/>'
        saved = f"{100 * self.kept['saving_recipe']:.0f} % less compute"
        yield _text((start + end) / 2, y - 9, saved, fill=GREEN, anchor="middle", bold=True)
        x = self._x(reference["passes"])
        yield _text(x + 14, 28, self._label("recipe", reference), fill=INK, anchor="end", bold=True)
        yield _text(end, y + 24, self._label("exported policy", best), fill=GREEN, bold=True)
        missed = [row for row in self.kept["candidates"] if row["passed"] is False]
        if missed:
            lowest = max(self._y(run["metric"]) for row in missed for run in row["runs"])
            yield _text(self._x(missed[-1]["passes"]) + 16, lowest, "cheaper ones that did not pass", fill=GREY)

    def _label(self, name: str, row: Mapping[str, Any]) -> str:
        return f"{name}: {row['passes']:.3g} passes, {row['metric']:.4f} (n = {len(row['runs'])})"

    def _x(self, passes: float) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * passes / self.longest

    def _y(self, metric: float) -> float:
        share = (metric - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share


def _text(x: float, y: float, words: str, *, fill: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'


def screenshot(report: Path, size: Sequence[int] = (1120, 730)) -> bytes:
    """The top of a report as PNG, in few colours.

    Raises:
        RuntimeError: there is no Chromium, or it drew nothing.
    """
    from PIL import Image

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise RuntimeError("Chromium must be installed to take a picture of a report.")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        png = Path(folder) / "report.png"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000"]
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={size[0]},{size[1]}", f"--screenshot={png}"]
        subprocess.run([program, *flags, report.resolve().as_uri()], check=True, capture_output=True, timeout=120)
        drawn = io.BytesIO()
        Image.open(png).convert("RGB").quantize(64).save(drawn, "PNG", optimize=True)
    if len(drawn.getvalue()) > MOST_BYTES:
        raise RuntimeError(
            f"the picture has {len(drawn.getvalue()):,} bytes; {MOST_BYTES:,} are the most. Make it smaller."
        )
    return drawn.getvalue()


if __name__ == "__main__":
    main()
