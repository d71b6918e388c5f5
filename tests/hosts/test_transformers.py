"""transformers: the function of docs/own_training.md, and bundles that a Trainer follows. Run by `make test-hosts`."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs transformers, and runs by `make test-hosts`", allow_module_level=True)

from host_bundles import (
    CASES,
    SEED,
    HostCase,
    assert_ranks_train_as_one,
    digits_bundle,
    export_bundle,
    make_case,
    run_script,
    vector,
)
from own_hosts import assert_same_bits
from places import ROOT
from torch import nn
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainerCallback, TrainingArguments, set_seed

from subsettune import config
from subsettune.data import DataPaths
from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.integrations.transformers import PolicyTrainer
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.follow.switches import bare

pytestmark = pytest.mark.filterwarnings("default")  # transformers's own are not ours to mend
EXAMPLE = ROOT / "examples" / "transformers_trainer.py"


class Named(Dataset[dict[str, Any]]):
    """Examples by name, as transformers takes them, with a column that no model takes."""

    def __init__(self, case: HostCase) -> None:
        self.rows, self.inputs, self.labels = case.dataset.tensors

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"rows": self.rows[row], "inputs": self.inputs[row], "labels": self.labels[row], "text": "unused"}


class WithLoss(nn.Module):
    """A network that gives its loss."""

    def __init__(self, case: HostCase) -> None:
        super().__init__()
        self.network = case.network()
        self.seen: list[list[int]] = []

    def forward(self, rows: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(rows.tolist())
        logits = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def arguments(case: HostCase, folder: Path, **settings: Any) -> TrainingArguments:
    accumulate = settings.get("gradient_accumulation_steps", 1)
    plain = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": -(-case.task.recipe.batch_size // accumulate),
        "learning_rate": case.task.recipe.lr,
        "max_grad_norm": 0,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": SEED,
    }
    return TrainingArguments(str(folder), **{**plain, **settings})


def train(case: HostCase, folder: Path, *, resume: Path | None = None, **settings: Any) -> Any:
    """A training; gives model and trainer."""
    own = {name: settings.pop(name) for name in ("callbacks", "optimizers", "example_losses") if name in settings}
    with case.seeded():
        model = WithLoss(case)
        drawn = torch.get_rng_state()
        trainer = PolicyTrainer(
            model,
            arguments(case, folder, **settings),
            bundle=case.bundle,
            policy_seed=SEED,
            train_dataset=Named(case),
            **own,
        )
        torch.set_rng_state(drawn)  # Trainer seeds torch
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return model, trainer


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostCase]:
    return {name: make_case(name, tmp_path_factory.mktemp(name)) for name in CASES}


def test_the_bits_of_a_plain_function() -> None:
    assert_same_bits("transformers")


@pytest.mark.parametrize(
    ("name", "num_workers"), [*((name, 0) for name in CASES if name != "dropout"), ("weighted", 2)]
)
def test_rows_weights_and_ledger_are_those_of_a_run(
    cases: dict[str, HostCase], name: str, num_workers: int, tmp_path: Path
) -> None:
    case = cases[name]
    model, trainer = train(case, tmp_path, dataloader_num_workers=num_workers)
    assert model.seen == case.steps
    assert torch.equal(vector(model), case.weights)
    assert trainer.sampler.ledger() == trainer.sampler.promise == case.ledger


@pytest.mark.parametrize(("name", "accumulate"), [("dropout", 1), ("weighted", 1), ("shrunk", 2)])
def test_a_checkpoint_goes_on_with_the_bits_of_the_undisturbed_run(
    cases: dict[str, HostCase], name: str, accumulate: int, tmp_path: Path
) -> None:
    case = cases[name]
    settings = {"gradient_accumulation_steps": accumulate, "save_strategy": "steps", "save_steps": 1}
    whole, _ = train(case, tmp_path, **settings)
    total = len(case.steps)
    for step in (1, total // 5, total // 2, total - 1, total):
        rest, trainer = train(
            case, tmp_path / "rest", resume=tmp_path / f"checkpoint-{step}", gradient_accumulation_steps=accumulate
        )
        assert rest.seen == whole.seen[step * accumulate :], step
        assert torch.equal(vector(rest), vector(whole)), step
        assert trainer.sampler.ledger() == case.ledger


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("name", ["plain", "uneven"])
def test_accumulated_batches_are_slices_of_one(
    cases: dict[str, HostCase], name: str, accumulate: int, tmp_path: Path
) -> None:
    case = cases[name]
    model, trainer = train(case, tmp_path, gradient_accumulation_steps=accumulate)
    for number, step in enumerate(case.steps):
        parts = model.seen[number * accumulate : (number + 1) * accumulate]
        assert {row for part in parts for row in part} == set(step)
    torch.testing.assert_close(vector(model), case.weights, rtol=1e-4, atol=1e-5)
    assert trainer.sampler.ledger() == case.ledger


@pytest.mark.parametrize("name", ["weighted", "shrunk"])
def test_two_processes_train_as_one(cases: dict[str, HostCase], name: str, tmp_path: Path) -> None:
    assert_ranks_train_as_one("transformers", cases[name], tmp_path)


# --- texts ---------------------------------------------------------------------------------------------------------


class Sentences(Dataset[dict[str, Any]]):
    """Rows of SST-2, each word a number by the order in which words come."""

    def __init__(self, lines: list[str]) -> None:
        pairs = [line.rsplit("\t", 1) for line in lines]
        words: dict[str, int] = {}
        self.ids = [[words.setdefault(word, len(words) + 1) for word in text.split()[:16]] for text, _ in pairs]
        self.labels = [int(label) for _, label in pairs]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        ids = self.ids[row] + [0] * (16 - len(self.ids[row]))
        return {"input_ids": ids, "attention_mask": [int(i > 0) for i in ids], "labels": self.labels[row]}


@pytest.mark.skipif("SUBSETTUNE_DATA" not in os.environ, reason="needs SST-2 in SUBSETTUNE_DATA")
@pytest.mark.parametrize("accumulate", [1, 3])
def test_bert_follows_a_bundle_of_sst2_and_goes_on_from_a_checkpoint(accumulate: int, tmp_path: Path) -> None:
    with gzip.open(Path(os.environ["SUBSETTUNE_DATA"], "sst2", "train.tsv.gz"), "rt", encoding="utf-8") as file:
        lines = [next(file).rstrip("\n") for _ in range(401)]
    (tmp_path / "sst2.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    raw = {
        "data": {"source": str(tmp_path / "sst2.tsv"), "text": "sentence", "label": "label", "max_tokens": 16},
        "model": {"name": "transformer", "width": 8, "depth": 1, "heads": 2, "feedforward": 8},
        "recipe": {"optimizer": "adamw", "lr": 0.002, "batch_size": 16, "epochs": 4, "grad_clip": 1.0},
        "tolerance": 0.05,
    }
    task = config.build(Task, raw)
    policy = Policy(phases=(Phase(share=0.3, passes=0.8), Phase(passes=1.3, transition="shrink_perturb")))
    bundle = export_bundle(task, policy, DataPaths(cache=str(tmp_path / "cache")), tmp_path)
    dataset = Sentences(lines[1:])

    def trained(resume: Path | None = None) -> Any:
        set_seed(SEED)
        size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = BertForSequenceClassification(BertConfig(vocab_size=8000, **size))  # with dropout
        settings = TrainingArguments(
            str(tmp_path / "out"),
            num_train_epochs=1,
            per_device_train_batch_size=-(-16 // accumulate),
            gradient_accumulation_steps=accumulate,
            learning_rate=0.002,
            max_grad_norm=1.0,
            save_strategy="steps",
            save_steps=7,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        labels = torch.tensor(dataset.labels)
        trainer = PolicyTrainer(model, settings, bundle=bundle, train_dataset=dataset, labels=labels)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        assert trainer.sampler.ledger() == trainer.sampler.promise
        assert type(bare(trainer.optimizer)) is torch.optim.AdamW
        return vector(model)

    whole = trained()
    assert torch.equal(trained(tmp_path / "out" / "checkpoint-7"), whole)
    assert torch.equal(trained(tmp_path / "out" / "checkpoint-21"), whole)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_train_epochs": 3}, "num_train_epochs=1 to follow this bundle, got 3. Give them so."),
        (
            {"num_train_epochs": 3, "per_device_train_batch_size": 8, "max_grad_norm": 1.0, "learning_rate": 5e-5},
            "num_train_epochs=1, per_device_train_batch_size=16, max_grad_norm=0 and learning_rate=0.1 to follow this "
            "bundle, got 3, 8, 1.0 and 5e-05. Give them so.",
        ),
        ({"max_steps": 5}, "max_steps=-1 to follow this bundle, got 5."),
        ({"ignore_data_skip": True}, "ignore_data_skip=False to follow this bundle, got True."),
        ({"auto_find_batch_size": True}, "auto_find_batch_size=False to follow this bundle, got True."),
    ],
)
def test_arguments_that_change_the_batches_are_refused_at_once(
    cases: dict[str, HostCase], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"^TrainingArguments must have {re.escape(message)}"):
        train(cases["plain"], tmp_path, **settings)


def test_the_steps_of_the_policy_may_be_told_as_max_steps(cases: dict[str, HostCase], tmp_path: Path) -> None:
    case = cases["plain"]
    model, _ = train(case, tmp_path, max_steps=len(case.steps), num_train_epochs=3)
    assert torch.equal(vector(model), case.weights)


class Stops(TrainerCallback):
    """Early stopping."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == 5


def test_a_training_that_stops_early_is_told(cases: dict[str, HostCase], tmp_path: Path) -> None:
    with pytest.raises(TrainingFunctionError, match=r"^sampler.finish was called after 5 of 26 batches. Train on all"):
        train(cases["plain"], tmp_path, callbacks=[Stops()])


def test_losses_that_cannot_be_weighed_are_refused(cases: dict[str, HostCase], tmp_path: Path) -> None:
    case = cases["weighted"]
    with pytest.raises(ConfigError, match=r"^example_losses must be one loss for each example, got \(\). Give Policy"):
        train(case, tmp_path, example_losses=lambda outputs, labels: outputs["loss"])
    network = case.network()
    optimizer = case.optimizer(network)
    rates = torch.optim.lr_scheduler.ConstantLR(optimizer)
    with pytest.raises(ConfigError, match=r"^optimizers must be an optimizer and None, got 'ConstantLR'."):
        train(case, tmp_path, optimizers=(optimizer, rates))


def test_the_example_runs(tmp_path: Path) -> None:
    folder = str(digits_bundle(tmp_path))
    told = run_script(EXAMPLE, folder, str(tmp_path / "out"))
    assert told.endswith("FLOP as promised\n")
    assert len(EXAMPLE.read_text().splitlines()) < 40
