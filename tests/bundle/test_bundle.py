from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from fake_bundle import FINGERPRINT, Part, export, phase_subset, view_of
from fake_study import FACTS, with_own
from places import ROOT, SUPPORT
from pyarrow import fs

from subsettune import bundle, config
from subsettune.bundle import Bundle, PhaseSubset, files, readme
from subsettune.bundle.export import export_policy, export_study
from subsettune.errors import BundleError, ConfigError, StorageError
from subsettune.policy import Phase, Policy, Soup
from subsettune.storage import Folder
from subsettune.text import side_words


@pytest.mark.parametrize("state", ["subset_wins", "random_wins", "full_wins"])
@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_a_bundle_comes_back_as_it_was(tmp_path: Path, state: str, metric: str) -> None:
    made, _ = export(tmp_path / "bundle", state, metric)
    assert Bundle.load(tmp_path / "bundle") == made
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {files.MANIFEST, files.ROWS, *files.FILES}


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    export(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    export(target)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_what_policy_json_holds(tmp_path: Path) -> None:
    _, view = export(tmp_path)
    plain = json.loads((tmp_path / "policy.json").read_text())
    assert plain["schema"] == 1
    assert plain["policy"] == json.loads(json.dumps(view.candidates["candidate-1"].policy.to_mapping()))
    assert config.build(type(FACTS), plain["facts"]) == FACTS
    assert plain["task"]["data"]["source"] == "digits"
    assert plain["fingerprint"] == FINGERPRINT
    assert plain["seed"] == 7


def test_what_subset_parquet_holds(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    table = pq.read_table(tmp_path / "subset.parquet")
    k = made.policy.phases[0].pool_size(1257)
    assert table.schema.names == ["phase", "rank", "index", "weight", "label"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "int64", "int64", "float", "int64"]
    assert table["rank"].to_pylist() == list(range(k))
    index, label = np.array(table["index"]), np.array(table["label"])
    assert (index % 2 == 0).all()  # rows of the file, not positions in the training part
    assert (label == index // 2 % 10).all()
    assert json.loads(table.schema.metadata[b"subsettune"]) == {"schema": 1, "fingerprint": FINGERPRINT, "seed": 7}


def test_what_evidence_json_holds(tmp_path: Path) -> None:
    made, view = export(tmp_path)
    plain = json.loads((tmp_path / "evidence.json").read_text())
    assert [c["name"] for c in plain["candidates"]] == list(view.candidates)
    winner = next(c for c in plain["candidates"] if c["name"] == plain["winner"])
    assert len(winner["runs"]) == len(plain["reference"]["runs"]) == 5
    assert winner["verdict"]["lower_bound"] == view.verdicts["candidate-1"].lower_bound
    assert (plain["margin"], plain["alpha"], plain["target"]) == (0.01, 0.05, view.target)
    assert plain["saving_recipe"] == view.summary.best.saving
    tuning = view.summary.tuning
    assert (plain["break_even"], plain["break_even_seconds"]) == (tuning.break_even, tuning.break_even_seconds)
    assert plain["tuning_seconds"] == tuning.seconds
    assert plain["needs"] == {"full": [0.18, 0.31], "subset": [0.03, 0.05]}
    assert [one["control"] for one in plain["contrasts"]] == ["equal", "random"]
    assert made.evidence.against_controls == tuple(view.manifest.contrasts.values())
    assert winner["reference_metric"] == plain["reference"]["metric"] == view.summary.best.reference_metric
    assert winner["error_increase"] == view.summary.best.error_increase
    assert plain["versions"]["torch"] == "2.9.1"
    assert plain["hardware"]["num_cpus"] == 2
    assert plain["command"].startswith("subsettune tune")
    assert made.evidence.best.policy == made.policy


def test_saving_against_the_best_shorter_schedule(tmp_path: Path) -> None:
    made, view = export(tmp_path, "before")
    shorter = view.candidates["shorter"]
    assert view.verdicts["shorter"].passed
    assert made.evidence.saving_shorter == 1 - made.policy.cost(FACTS) / shorter.cost_flops


def test_a_policy_of_the_full_arm_has_an_empty_table(tmp_path: Path) -> None:
    export(tmp_path, "full_wins")
    loaded = Bundle.load(tmp_path)
    assert loaded.table.num_rows == 0
    assert loaded.policy.arm == "full"
    with pytest.raises(BundleError, match=r"^phase must be one of \[\], the phases with a subset, got None."):
        loaded.subset()


# --- what a follower asks ---------------------------------------------------------------------------------------------


def test_the_subset_in_rank_order(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    expected = phase_subset(made.policy)
    subset = Bundle.load(tmp_path).subset()
    assert subset.index.tolist() == expected.index.tolist()
    assert subset.weight.tolist() == [1.0] * len(expected)
    assert made.subset(0, limit=10).index.tolist() == expected.index[:10].tolist()
    index, weight = subset.tensors()
    assert index.dtype == torch.int64
    assert weight.dtype == torch.float32


def test_a_prefix_must_be_in_range(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    with pytest.raises(BundleError, match=r"^limit must be between 1 and .*, got 0."):
        made.subset(limit=0)
    with pytest.raises(BundleError, match=r"^phase must be one of \[0\], the phases with a subset, got 1."):
        made.subset(1)


def test_a_ladder_has_a_subset_for_each_phase(tmp_path: Path) -> None:
    made, _ = export(tmp_path / "one")
    ladder = Policy(phases=(*(Phase(share=share, passes=1) for share in (0.1, 0.5)), Phase(passes=1)))
    subsets = (phase_subset(ladder, 0, weighted=True), phase_subset(ladder, 1))
    known = {"task": made.task, "facts": FACTS, "fingerprint": FINGERPRINT, "subsets": subsets}
    export_policy(tmp_path / "two", ladder, made.evidence, **known)  # type: ignore[arg-type]
    loaded = Bundle.load(tmp_path / "two")
    assert [len(loaded.subset(phase)) for phase in (0, 1)] == [126, 628]
    assert loaded.subset(0).weight.tolist() == subsets[0].weight.tolist()
    with pytest.raises(BundleError, match=r"^phase must be one of \[0, 1\]"):
        loaded.subset()


@pytest.mark.parametrize("targets", [torch.rand(1257), torch.rand(1257, 3)])
def test_labels_of_a_regression(tmp_path: Path, targets: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Part, "targets", targets)
    made, _ = export(tmp_path, "random_wins", "mse")
    loaded = Bundle.load(tmp_path)
    assert loaded == made
    label = loaded.subset().label
    assert label.dtype == np.float64
    assert np.array_equal(label, targets.double().numpy()[loaded.subset().index // 2])


def test_visits_are_the_allowance_less_the_selection_in_whole_batches(tmp_path: Path) -> None:
    made, _ = export(tmp_path / "one")
    costly = Policy(phases=(Phase(share=0.1, passes=3, selector="kcenter"), Phase(passes=1.5)))
    known = {"task": made.task, "facts": FACTS, "fingerprint": FINGERPRINT, "subsets": (phase_subset(costly),)}
    other = export_policy(tmp_path / "two", costly, made.evidence, **known)  # type: ignore[arg-type]
    n, k, d = 1257, 126, 64
    selection = n * (k - 1) * (2 * d + 3) + 3 * n * d
    exact = (3 * FACTS.pass_flops - selection) / FACTS.example_flops
    assert 0 <= other.visits[0] - exact < other.recipe.batch_size
    whole = (other.policy.cost(FACTS) - selection) / FACTS.example_flops
    assert 0 <= whole - sum(other.visits) < other.recipe.batch_size


def test_a_bundle_is_told_in_a_line(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    assert re.fullmatch(
        r"<subsettune\.Bundle of digits-2026-01-31-a1b2c3: 1\.07 passes on 146, then all of 1,257 examples, 96% less "
        r"compute than the recipe, test accuracy 0\.9\d+>",
        repr(made),
    )


def test_the_recipe_has_the_policys_settings(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    assert made.recipe.lr == made.policy.recipe["lr"]
    assert made.recipe.momentum == 0.9


def test_other_data_are_refused_with_both_fingerprints(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    made.check(FINGERPRINT)
    with pytest.raises(BundleError, match=f"fingerprint {FINGERPRINT}, these have 1234. Use the original data."):
        made.check("1234")


def test_transfer_derives_the_sizes_anew(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    share = made.policy.phases[0].share
    moved, message = made.derive(dataclasses.replace(FACTS, num_examples=10_000))
    assert moved == made.policy
    assert message == (
        f"Sizes were derived anew: phase 1 takes {round(share * 10_000):,} of 10,000 examples, by its share, "
        f"instead of {round(share * 1257):,} of 1,257. "
        "Examples are chosen again, and the evidence speaks for the old data only."
    )


def test_sizes_that_stay_are_not_told_as_changes(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    _, message = made.derive(made.facts)
    assert message == (
        "Sizes are as they were. Examples are chosen again, and the evidence speaks for the old data only."
    )


def test_transfer_by_q(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    first = dataclasses.replace(made.policy.phases[0], share=FACTS.share_of_q(0.5), q=0.5, selector="random")
    by_q = Policy(phases=(first, made.policy.phases[1]))
    known = {"task": made.task, "facts": FACTS, "fingerprint": FINGERPRINT, "subsets": (phase_subset(by_q),)}
    other = export_policy(tmp_path, by_q, made.evidence, **known)  # type: ignore[arg-type]
    moved, message = other.derive(dataclasses.replace(FACTS, num_examples=10_000))
    assert moved.phases[0].pool_size(10_000) == first.pool_size(1257) == 240  # as Q = K M / P says, whatever N
    assert "240 of 10,000 examples, by its Q of 0.5, instead of 240 of 1,257" in message
    with pytest.raises(ConfigError, match="q must be at most"):
        other.derive(dataclasses.replace(FACTS, num_examples=100, smallest_class=9))


@pytest.mark.parametrize("part", ["", "/policy.json"])
def test_read_policy_of_a_bundle(tmp_path: Path, part: str) -> None:
    made, _ = export(tmp_path)
    assert bundle.read_policy(f"{tmp_path}{part}") == made.policy


def test_read_policy_of_a_bare_file(tmp_path: Path) -> None:
    made, _ = export(tmp_path / "bundle")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(made.policy.to_mapping()))
    assert bundle.read_policy(path) == made.policy
    path.write_text("{}")
    with pytest.raises(ConfigError, match="key 'phases' is missing"):
        bundle.read_policy(path)
    with pytest.raises(ConfigError, match=r"gone.json holds no policy: .* Give a bundle or a policy.json"):
        bundle.read_policy(tmp_path / "gone.json")


@pytest.mark.slow
def test_loading_needs_torch_numpy_and_pyarrow_alone(tmp_path: Path) -> None:
    export(tmp_path)
    code = """
        import sys
        allowed = {"torch", "numpy", "pyarrow", "subsettune", *sys.stdlib_module_names}
        refused = {"ray", "optuna", "plotly", "rich", "scipy", "sklearn", "ruamel", "torchvision", "pydantic", "PIL",
                   "platformdirs", "pandas"}
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in refused:
                    raise ImportError(f"{name} must not be needed")
        sys.meta_path.insert(0, Refuse())
        from subsettune import Bundle
        loaded = Bundle.load(sys.argv[1])
        assert "torch" not in sys.modules
        index, weight = loaded.subset().tensors()
        assert len(index) == len(weight) > 0
        loaded.check(loaded.fingerprint), loaded.derive(loaded.facts), loaded.recipe
        assert not refused & {name.split(".")[0] for name in sys.modules}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True)


def test_json_and_parquet_alone(tmp_path: Path) -> None:
    export(tmp_path)
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        assert raw[:2] not in (b"\x80\x04", b"\x80\x05", b"PK")
        assert raw[:4] == b"PAR1" or raw.decode()


# --- the page ---------------------------------------------------------------------------------------------------------


def test_readme_tells_the_policy_and_the_numbers(tmp_path: Path) -> None:
    made, view = export(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"# A training policy for digits\n\n**{view.summary.headline}**\n")
    assert f"Train on {len(made.subset()):,} of 1,257 examples (" in text
    assert "chosen by `stratified`" in text
    assert "Train on all 1,257 training examples for" in text
    number = r"[+-]0\.\d+"
    row = rf"\| \*\*candidate-1\*\* \| 5 \| 5 \| 0\.9\d+ \| {number} \| {number} \| 0\.016 \|.*\| 96 % \| passed \|"
    assert re.search(row, text)
    assert "| reference | 5 | - | 0.9" in text
    assert "| recipe | - | - | - | - | - | 0.012 | 27.0 | 686 MFLOP | - | - | not tested |" in text
    assert re.search(rf"\| random \| 5 \| - \| 0\.9\d+ \| {number} \| - \| - \|.*\| - \| outside the margin \|", text)
    assert made.evidence.statement in text
    assert "not the sampling of the test set" in text
    assert "Xeon(R) &lt;8175M> @" in text  # no reader takes it for HTML
    assert f"subsettune follow {tmp_path.name} --save model" in text
    assert f"subsettune follow {tmp_path.name} --data NEW.parquet --save model" in text
    assert str(tmp_path) not in text
    assert not re.search(r"[{}]|None|nan", text.split("```python")[0])


def test_readme_names_the_last_part_of_a_folder_with_or_without_a_slash_behind_it(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    command = "subsettune tune a.yaml --data-root /mnt/data/ --cache /scratch/me/cache --storage s3://bucket/runs/"
    text = readme.page(dataclasses.replace(made, evidence=dataclasses.replace(made.evidence, command=command)), "b")
    assert "subsettune tune a.yaml --data-root data --cache cache --storage s3://bucket/runs/" in text


def test_readme_tells_what_the_numbers_are_and_what_they_cost(tmp_path: Path) -> None:
    _, view = export(tmp_path)
    text = " ".join((tmp_path / "README.md").read_text().split())
    equal, random = view.manifest.contrasts["equal"], view.manifest.contrasts["random"]
    tuning = view.summary.tuning
    assert (
        "Test split, means over n runs, held against so many *references*, runs of the conventional recipe. "
        "*Difference* is that of the two means of accuracy, with the sign that makes more better; *bound* is its "
        "one-sided lower bound, which has to lie above -0.01; the verification as a whole errs with probability 0.05 "
        "at most, of which *level* is what the tests of one policy share. Of what has no level "
        "nothing is claimed. *Passes*, *FLOPs* and *seconds* are those of one training, selection included; *saving* "
        "is compute against the reference. "
        "- Against the conventional recipe: 96 % of the compute saved, and of the seconds that were measured 95 %; its "
        "error differs by -6.9 %. "
        "- candidate-1 against plain training of its compute by the settings that the search found (`equal`): better "
        f"by {equal.mean_difference:.4f} (at least {equal.lower_bound:.4f}), 5 pairs of runs with one seed. "
        "- candidate-1 against the same with a random subset (`random`): "
        f"better by {random.mean_difference:.4f}, nothing is claimed, 5 pairs of runs with one seed. "
        "- With other test examples in place of these, too, its difference is -0.0079 to +0.0129 (95 %, two-sided). "
        "- Plain training needs 0.18 to 0.31 of the recipe's compute to match on the validation split, as the search "
        "saw it. A rough guess of its model, which no test stands behind. Other "
        "examples may ask for more or less. "
        "- Against a shorter schedule on all data: none is shown to match. "
        f"- The study itself spent 12.1 GFLOP, which {tuning.break_even} future trainings with this policy repay; its "
        f"runs took 3.33 s, which {tuning.break_even_seconds} repay. ## How"
    ) in text


@pytest.mark.parametrize(
    ("break_even", "seconds", "words"),
    [
        (None, None, "The study itself spent 12.1 GFLOP; no number of trainings repays it."),
        (1, 1, "which 1 future training with this policy repays; its runs took 3.33 s, which 1 repays."),
        (17, None, "with this policy repay; its runs took 3.33 s, which none repays, for no time is saved."),
    ],
)
def test_readme_says_when_the_tuning_is_repaid(
    break_even: int | None, seconds: int | None, words: str, tmp_path: Path
) -> None:
    view = view_of("subset_wins", "accuracy")
    tuning = dataclasses.replace(view.summary.tuning, break_even=break_even, break_even_seconds=seconds)
    view = dataclasses.replace(view, summary=dataclasses.replace(view.summary, tuning=tuning))
    subsets = [phase_subset(view.candidates["candidate-1"].policy)]
    export_study(view, "candidate-1", subsets, seed=7, target=tmp_path)
    assert words in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("state", ["random_wins", "full_wins", "equal_wins", "before"])
def test_readme_of_other_winners(tmp_path: Path, state: str) -> None:
    made, _ = export(tmp_path, state)
    text = (tmp_path / "README.md").read_text()
    is_plain = state in ("full_wins", "equal_wins")
    assert ("- Against a shorter schedule on all data: this policy is one.\n" in text) == is_plain
    assert ("the table of rows is empty" in text) == is_plain
    assert (" against plain training of its compute by the settings that the search found (`equal`): " in text) == (
        state in ("random_wins", "equal_wins")
    )
    assert made.evidence.needs == {}
    assert "as the search saw it" not in text


@pytest.mark.parametrize(("difference", "is_told"), [(-0.004, True), (-0.02, False)])
def test_readme_says_where_plain_training_by_the_policys_own_settings_looked_as_good(
    difference: float, is_told: bool, tmp_path: Path
) -> None:
    view = with_own(view_of("subset_wins", "accuracy"), difference)
    subsets = [phase_subset(view.candidates["candidate-1"].policy)]
    export_study(view, "candidate-1", subsets, seed=7, target=tmp_path)
    line = "- Against a shorter schedule on all data: none is shown to match"
    near = "; `own` (1.07 passes) looked as good, without a test for a match" if is_told else ""
    assert f"{line}{near}.\n" in (tmp_path / "README.md").read_text()


def test_an_exported_twin_says_that_the_subset_is_not_shown_to_differ(tmp_path: Path) -> None:
    made, view = export(tmp_path, "equal_wins")
    text = (tmp_path / "README.md").read_text()
    contrast = view.manifest.contrasts["equal"]
    assert (made.evidence.winner, made.policy.arm) == ("equal", "full")
    told = f"not shown to differ ({side_words(contrast.mean_difference, 0.01)}), 5 pairs of runs with one seed."
    assert (
        f"- candidate-1 against plain training of its compute by the settings that the search found (`equal`): {told}\n"
        in text
    )
    assert "| candidate-1 | 20 | 5 | 0.9" in text
    assert "5 runs of equal beside 5 conventional runs: its mean test metric is" in text


def _page(policy: Policy, tmp_path: Path) -> str:
    view = view_of("subset_wins", "accuracy")
    candidates = {
        name: dataclasses.replace(candidate, policy=policy) if name == "candidate-1" else candidate
        for name, candidate in view.candidates.items()
    }
    subsets = [phase_subset(policy, i) for i, phase in enumerate(policy.phases) if not phase.is_full]
    view = dataclasses.replace(view, candidates=candidates)
    export_study(view, "candidate-1", subsets, seed=7, target=tmp_path)
    return (tmp_path / "README.md").read_text()


SIFT: dict[str, Any] = {"order": "sift", "order_options": {"exit": 1.0}}  # the network of the facts has no exit


@pytest.mark.parametrize(
    ("phases", "why", "alone"),
    [
        (
            (Phase(share=0.2, passes=1, **SIFT), Phase(passes=2, **SIFT)),
            "Not by training code of your own alone: each of the phases 1, 2 takes its batches in the order `sift`, "
            "which goes by what the network does.",
            "No phase is ordinary training that other code could do by itself.",
        ),
        (
            (Phase(share=0.2, passes=1, soup=Soup(workers=4)), Phase(share=0.2, passes=1), Phase(passes=2)),
            "Not by training code of your own alone: phase 1 trains workers apart and averages them.",
            "Each of the phases 2, 3 is ordinary training on the rows of the table, or on all of them, which other "
            "code can do by itself, but one learning-rate schedule goes through all phases.",
        ),
        (
            (Phase(share=0.2, passes=1), Phase(passes=2, transition="prune")),
            "Not by training code of your own alone: phase 2 trains a network that was made narrower, unit by unit, by "
            "its own activations.",
            "Phase 1 is ordinary training on the rows of the table, or on all of them, which other code can do by "
            "itself, but one learning-rate schedule goes through all phases.",
        ),
    ],
)
def test_readme_says_what_other_code_cannot_do_and_names_the_call(
    phases: tuple[Phase, ...], why: str, alone: str, tmp_path: Path
) -> None:
    text = _page(Policy(phases=phases), tmp_path)
    assert f"{why} {alone}" in text
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "train.run(bundle.task, bundle.policy, seed=bundle.seed" in code
    assert f"Bundle.load({tmp_path.name!r})" in code


def test_readme_of_a_soup_says_what_it_is(tmp_path: Path) -> None:
    soup = Phase(share=0.20004, passes=1.0634, soup=Soup(workers=4, density=0.5))
    text = _page(Policy(phases=(soup, Phase(passes=2))), tmp_path)
    assert (
        "1. Make a soup (density 0.5, masks erk, uncovered init, rand_augment 0): average 4 workers that train apart "
        "on disjoint shards of 251 of 1,257 examples (20 %), chosen by `random`, for 1.06 passes: " in text
    )


def test_readme_of_an_order_without_a_subset(tmp_path: Path) -> None:
    order: dict[str, Any] = {"order": "sift", "order_options": {"keep": 0.5, "exit": 1.0}}
    text = _page(Policy(phases=(Phase(passes=1, **order), Phase(passes=2, **order))), tmp_path)
    assert "No subset is chosen, so the table of rows is empty." in text
    assert "this policy is one" not in text


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", files.FILES)
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    export(tmp_path)
    (tmp_path / name).unlink()
    expected = f"{tmp_path}: {name} is missing. Copy the bundle anew, or export it again."
    with pytest.raises(BundleError, match=f"^{re.escape(expected)}$"):
        Bundle.load(tmp_path)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"is no bundle: bundle.json is missing. Give the folder that an export wrote"
    ):
        Bundle.load(tmp_path / "nothing")


@pytest.mark.parametrize("name", files.FILES)
def test_a_changed_byte(tmp_path: Path, name: str) -> None:
    export(tmp_path)
    raw = bytearray((tmp_path / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(BundleError, match=rf"{name} is damaged: its content is not what bundle.json says. Copy the"):
        Bundle.load(tmp_path)


def test_any_changed_byte_of_the_manifest_is_noticed_or_harmless(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    good = (tmp_path / files.MANIFEST).read_bytes()
    for position in range(len(good)):
        changed = bytes([*good[:position], good[position] ^ 1, *good[position + 1 :]])
        (tmp_path / files.MANIFEST).write_bytes(changed)
        try:
            loaded = Bundle.load(tmp_path)
        except BundleError:
            continue
        assert loaded == made


def _rewritten(folder: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file and its hash, so that what is inside has to be noticed."""
    raw = change((folder / name).read_bytes())
    (folder / name).write_bytes(raw)
    manifest = json.loads((folder / files.MANIFEST).read_text())
    manifest["files"][name]["sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / files.MANIFEST).write_text(json.dumps(manifest))


def _edited(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda raw: json.dumps({**json.loads(raw), **changes}).encode()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("subset.parquet", lambda raw: raw[: len(raw) // 2], "subset.parquet is damaged: .* Copy the bundle anew"),
        ("subset.parquet", lambda raw: b"", "subset.parquet is damaged"),
        ("policy.json", lambda raw: raw[:-20], "policy.json is damaged"),
        ("policy.json", lambda raw: b"[1]", "policy.json is damaged"),
        (
            "policy.json",
            _edited(schema=2),
            "schema of policy.json must be 1, got 2. Another version of subsettune wrote",
        ),
        ("evidence.json", _edited(schema=None), "schema of evidence.json must be 1, got None"),
        ("policy.json", _edited(seed=8), "subset.parquet belongs to other data or another seed than policy.json"),
        ("policy.json", _edited(fingerprint="0"), "subset.parquet belongs to other data or another seed"),
        ("policy.json", _edited(extra=1), "does not hold together: extra: unknown key"),
        ("policy.json", _edited(visits=[1]), "visits must be a count for each of 2 phases"),
        ("policy.json", _edited(facts={}), "does not hold together: facts: key 'num_examples' is missing"),
        ("evidence.json", _edited(winner="nobody"), "winner must be one of .*, got 'nobody'"),
        ("README.md", lambda raw: b"\xff\xfe", "does not hold together"),
    ],
)
def test_damage_that_the_hash_agrees_with(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], message: str
) -> None:
    export(tmp_path)
    _rewritten(tmp_path, name, change)
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema of bundle.json must be 1, got 2. Another version of subsettune wrote it"),
        ({"kind": "other"}, "is no bundle: its bundle.json is of another kind"),
        ({"complete": False}, "is incomplete: its export was interrupted. Export it again"),
        ({"files": {}}, "bundle.json is damaged: it does not list policy.json"),
        ({"files": None}, "bundle.json is damaged"),
    ],
)
def test_a_manifest_of_another_kind(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    export(tmp_path)
    path = tmp_path / files.MANIFEST
    path.write_bytes(_edited(**changes)(path.read_bytes()))
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path)


def _table_with(made: Bundle, **columns: Any) -> PhaseSubset:
    return dataclasses.replace(made.subset(), **columns)


def test_a_table_must_fit_its_policy(tmp_path: Path) -> None:
    made, _ = export(tmp_path)
    k = len(made.subset())
    known = {"task": made.task, "facts": FACTS, "fingerprint": FINGERPRINT}
    ones = np.ones(k, np.float32)
    for subsets, message in [
        ((), r"phases of the subset table must be \[0\], as the policy has them, got \[\]"),
        ((_table_with(made, index=np.zeros(k, np.int64)),), "must name each row of the source at most once"),
        ((_table_with(made, index=np.arange(-1, k - 1)),), "with an index of 0 or more"),
        ((_table_with(made, weight=-ones),), "must have weights that are finite and not negative"),
        ((_table_with(made, weight=np.nan * ones),), "must have weights that are finite"),
        (
            (_table_with(made, **{name: getattr(made.subset(), name)[:-1] for name in ("index", "weight", "label")}),),
            f"phase 1 of the subset table must have {k} rows, as the policy says, got {k - 1}",
        ),
    ]:
        with pytest.raises(BundleError, match=message):
            export_policy(tmp_path / "other", made.policy, made.evidence, subsets=subsets, **known)  # type: ignore[arg-type]
    assert not (tmp_path / "other").exists()


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_bundle_replaces_a_bundle(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    export(target, "full_wins")
    made, _ = export(target, "subset_wins")
    assert Bundle.load(target) == made
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_an_export_that_is_killed_around_a_rename_leaves_a_whole_bundle_or_none(tmp_path: Path, renames: int) -> None:
    code = f"""
        import os, pathlib, sys
        sys.path[:0] = {[str(SUPPORT), str(ROOT)]!r}
        from fake_bundle import export
        done, rename = [], pathlib.Path.rename
        def killed(self, target):
            if len(done) == {renames}:
                os._exit(9)
            done.append(target)
            return rename(self, target)
        pathlib.Path.rename = killed
        os.fsync = lambda descriptor: os._exit(9) if len(done) == 2 else None
        export({str(tmp_path / "bundle")!r}, "subset_wins")
    """
    old, _ = export(tmp_path / "bundle", "full_wins")
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 9
    assert (tmp_path / "bundle").exists() == (renames != 1)
    if renames != 1:
        assert (Bundle.load(tmp_path / "bundle") == old) == (renames == 0)
    made, _ = export(tmp_path / "bundle", "subset_wins")
    assert Bundle.load(tmp_path / "bundle") == made
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupt_between_the_renames_leaves_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    old, _ = export(tmp_path / "bundle", "full_wins")
    rename, done = Path.rename, list[Path]()

    def interrupted(self: Path, target: Path) -> Path:
        done.append(self)
        if len(done) == 2:
            raise error
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        with pytest.raises(StorageError if error is OSError else error):
            export(tmp_path / "bundle", "subset_wins")
    assert Bundle.load(tmp_path / "bundle") == old
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_after_a_kill_between_the_renames_a_failing_export_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = export(tmp_path / "bundle", "full_wins")
    (tmp_path / "bundle").rename(tmp_path / ".bundle.partial-0123-old")  # as a kill leaves it

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(StorageError, match="No space left on device"):
            export(tmp_path / "bundle", "subset_wins")
    assert Bundle.load(tmp_path / "bundle") == old


@pytest.mark.parametrize("content", [{"notes.txt": "mine"}, {"README.md": "mine"}])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    name = next(iter(content))
    with pytest.raises(
        BundleError, match=rf"holds what is no part of a bundle: {name}. Choose another folder, or empty"
    ):
        export(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_users_file_in_a_bundle_is_not_removed(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"holds what is no part of a bundle: notes.txt"):
        export(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(BundleError, match=r"is a file. Choose a folder for the bundle"):
        export(tmp_path / "bundle")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"cannot be written: .* Choose a folder that can be"):
        export(tmp_path / "file" / "bundle")


def test_a_failed_export_leaves_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = export(tmp_path / "bundle")

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", broken)
        with pytest.raises(StorageError, match="No space left on device"):
            export(tmp_path / "bundle", "full_wins")
    assert Bundle.load(tmp_path / "bundle") == made
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.slow
def test_leftovers_of_a_killed_export_are_swept(tmp_path: Path) -> None:
    code = f"""
        import os, sys
        sys.path[:0] = {[str(SUPPORT), str(ROOT)]!r}
        from fake_bundle import export
        from subsettune.bundle import files
        files._flush = lambda folder: os._exit(9)  # all files are written, the folder is not in its place yet
        export({str(tmp_path / "bundle")!r}, "full_wins")
    """
    made, _ = export(tmp_path / "bundle")
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    assert Bundle.load(tmp_path / "bundle") == made
    export(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def _store(root: Path) -> Folder:
    """Something that is not a local folder: it offers no rename."""
    (root / "bundle").mkdir()  # an object store has no folders to make
    return Folder(fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()), "bundle")


def test_an_object_store(tmp_path: Path) -> None:
    folder = _store(tmp_path)
    assert not folder.is_local
    export(folder, "full_wins")
    made, _ = export(folder)
    assert Bundle.load(folder) == made


def test_an_interrupted_upload_is_noticed_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, write = _store(tmp_path), Folder.write

    def broken(self: Folder, name: str, content: bytes) -> None:
        if name == files.EVIDENCE:
            raise StorageError("the line broke")
        write(self, name, content)

    export(folder, "full_wins")
    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", broken)
        with pytest.raises(StorageError, match="the line broke"):
            export(folder)
    with pytest.raises(BundleError, match=r"is incomplete: its export was interrupted. Export it again"):
        Bundle.load(folder)
    made, _ = export(folder)
    assert Bundle.load(folder) == made


def test_a_uri(tmp_path: Path) -> None:
    made, _ = export(f"file://{tmp_path}/bundle")
    assert Bundle.load(tmp_path / "bundle") == made


def test_seconds_of_the_recipe_are_those_that_the_study_tells(tmp_path: Path) -> None:
    view = view_of("full_wins", "accuracy")
    assert view.summary.reference is not None
    at_our_pace = dataclasses.replace(view.summary.reference, seconds=123.0)  # others where runs are from the cache
    view = dataclasses.replace(view, summary=dataclasses.replace(view.summary, reference=at_our_pace))
    assert view.manifest.winner is not None
    made = export_study(view, view.manifest.winner, [], seed=7, target=tmp_path)
    assert made.evidence.reference.seconds == 123.0
