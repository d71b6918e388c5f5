"""Lightning: the function of docs/own_training.md, and bundles that Lightning follows. Run by `make test-hosts`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs Lightning, and runs by `make test-hosts`", allow_module_level=True)

import lightning
from host_bundles import (
    CASES,
    SEED,
    HostCase,
    assert_ranks_train_as_one,
    digits_bundle,
    make_case,
    mean_loss,
    run_ranks,
    run_script,
    vector,
)
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from own_hosts import assert_same_bits
from places import ROOT
from torch.utils.data import DataLoader

from subsettune.errors import BundleError, ConfigError, TrainingFunctionError
from subsettune.integrations.lightning import FollowPolicy, PolicyDataModule

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own are not ours to mend
EXAMPLE = ROOT / "examples" / "lightning_module.py"


class Classifier(lightning.LightningModule):
    """Code of a user: a network, a loss, an optimizer."""

    def __init__(self, case: HostCase, *, asks_for_steps: bool = False, scheduler: bool = False) -> None:
        super().__init__()
        self.case, self.network = case, case.network()
        self.asks_for_steps, self.has_scheduler = asks_for_steps, scheduler
        self.seen: list[list[int]] = []
        self.validated = 0
        self.estimated: float | None = None

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        rows, inputs, targets, *weights = batch
        self.seen.append(rows.tolist())
        return mean_loss(self.network(inputs), targets, *weights)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        self.validated += 1

    def configure_optimizers(self) -> Any:
        if self.asks_for_steps:
            self.estimated = self.trainer.estimated_stepping_batches
        optimizer = self.case.optimizer(self)
        return ([optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]) if self.has_scheduler else optimizer


def trainer(*callbacks: Callback, **settings: Any) -> lightning.Trainer:
    plain = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(callbacks=[FollowPolicy(), *callbacks], **{**plain, **quiet, **settings})


def fit(case: HostCase, *callbacks: Callback, data: dict[str, Any] | None = None, **settings: Any) -> Any:
    """A fit; gives model and data."""
    given = {"weights": case.bundle.batch_sampler(case.data.num_source_examples).needs_weights, **(data or {})}
    path, asks = settings.pop("ckpt_path", None), settings.pop("asks_for_steps", False)
    module = PolicyDataModule(case.bundle, case.dataset, seed=SEED, **given)
    with case.seeded():
        model = Classifier(case, asks_for_steps=asks)
        trainer(*callbacks, **settings).fit(model, datamodule=module, ckpt_path=path)
    return model, module


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostCase]:
    return {name: make_case(name, tmp_path_factory.mktemp(name)) for name in CASES}


def test_the_bits_of_a_plain_function() -> None:
    assert_same_bits("lightning")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_rows_weights_and_ledger_are_those_of_a_run(cases: dict[str, HostCase], name: str, num_workers: int) -> None:
    if num_workers and name not in ("shrunk", "weighted"):
        pytest.skip("workers fetch ahead, whatever is trained")
    case = cases[name]
    model, data = fit(case, data={"num_workers": num_workers}, asks_for_steps=True)
    assert model.seen == case.steps
    assert torch.equal(vector(model), case.weights)
    assert data.sampler.ledger() == data.sampler.promise == case.ledger
    assert model.estimated == len(case.steps)


class Observer(Classifier):
    """For an order that goes by the losses of its batches."""

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        rows, inputs, targets, weights = batch
        self.seen.append(rows.tolist())
        outputs = self.network(inputs)
        losses = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
        self.trainer.datamodule.sampler.observe(rows, losses)
        return mean_loss(outputs, targets, weights)


def test_an_order_that_goes_by_losses_gets_them(tmp_path: Path) -> None:
    case = make_case("infobatch", tmp_path)
    data = PolicyDataModule(case.bundle, case.dataset, seed=SEED, weights=True)
    with case.seeded():
        model = Observer(case)
        trainer().fit(model, datamodule=data)
    assert model.seen == case.steps
    assert torch.equal(vector(model), case.weights)
    assert data.sampler.ledger() == case.ledger


class KeepEach(Callback):
    """A checkpoint after each update, as ModelCheckpoint writes one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}-{trainer.fit_loop.total_batch_idx}.ckpt")


@pytest.mark.parametrize(("name", "epochs"), [("dropout", 1), ("weighted", 1), ("dropout", 3)])
def test_a_checkpoint_goes_on_with_the_bits_of_the_undisturbed_run(
    cases: dict[str, HostCase], name: str, epochs: int, tmp_path: Path
) -> None:
    case = cases[name]
    settings = {"max_epochs": epochs, "data": {"epochs": epochs}}
    whole, _ = fit(case, KeepEach(tmp_path), **settings)
    assert torch.equal(vector(whole), case.weights)
    for step in (1, len(case.steps) // 5, len(case.steps) // 2, len(case.steps) - 1, len(case.steps)):
        path = str(tmp_path / f"{step}-{step - 1}.ckpt")
        rest, data = fit(case, ckpt_path=path, asks_for_steps=step % 2 == 0, **settings)
        assert rest.seen == case.steps[step:], step
        assert torch.equal(vector(rest), case.weights), step
        assert data.sampler.ledger() == case.ledger


def test_model_checkpoint_keeps_where_the_policy_is(cases: dict[str, HostCase], tmp_path: Path) -> None:
    case = cases["shrunk"]
    kept = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1, filename="{step}")
    fit(case, kept, enable_checkpointing=True)
    rest, _ = fit(case, ckpt_path=str(tmp_path / "step=10.ckpt"))
    assert torch.equal(vector(rest), case.weights)
    assert rest.seen == case.steps[10:]


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_batches_are_slices_of_one(cases: dict[str, HostCase], accumulate: int) -> None:
    for name in ("plain", "uneven"):
        case = cases[name]
        model, data = fit(case, accumulate_grad_batches=accumulate, data={"weights": True})
        slices = [model.seen[i : i + accumulate] for i in range(0, len(model.seen), accumulate)]
        for step, parts in zip(case.steps, slices, strict=True):
            rows = [row for part in parts for row in part]
            assert rows == step if len(step) >= accumulate else set(rows) == set(step)
        torch.testing.assert_close(vector(model), case.weights, rtol=1e-4, atol=1e-5)
        assert data.sampler.ledger() == case.ledger


@pytest.mark.parametrize("name", ["weighted", "uneven"])
def test_two_processes_train_as_one(cases: dict[str, HostCase], name: str, tmp_path: Path) -> None:
    assert_ranks_train_as_one("lightning", cases[name], tmp_path)


def test_a_sampler_of_lightnings_own_is_refused(cases: dict[str, HostCase], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="use_distributed_sampler must be False with several processes, got True"):
        run_ranks("lightning", cases["plain"], tmp_path, WITH_SAMPLER="1")


def test_each_of_several_epochs_is_validated(cases: dict[str, HostCase]) -> None:
    case = cases["shrunk"]
    assert len(case.steps) % 4  # epochs differ by a batch, and Lightning keeps the length of the first
    held = DataLoader(case.dataset, batch_size=300)
    model, _ = fit(
        case, max_epochs=4, data={"epochs": 4, "validation": held}, num_sanity_val_steps=0, val_check_interval=0.5
    )
    assert torch.equal(vector(model), case.weights)
    assert model.validated == 8


def test_the_rates_are_seen_by_a_monitor(cases: dict[str, HostCase], tmp_path: Path) -> None:
    case, monitor = cases["plain"], LearningRateMonitor("step")
    fit(case, monitor, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    rates = [line.split(",")[0] for line in Path(tmp_path, "lightning_logs/version_0/metrics.csv").read_text().split()]
    sampler = case.bundle.batch_sampler(case.data.num_source_examples)
    expected = [case.task.recipe.lr * sampler.lr_factor_at(step) for step in range(len(case.steps))]
    assert [float(rate) for rate in rates[1:]] == pytest.approx(expected)


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_epochs": 3}, "max_epochs must be 1, as PolicyDataModule(epochs=1), got 3. All epochs together"),
        ({"max_epochs": None, "max_steps": 5}, "max_epochs must be 1, as PolicyDataModule(epochs=1), got -1."),
        ({"max_steps": 5}, "max_steps must be -1, or 26 as the policy has, got 5."),
        ({"limit_train_batches": 0.5}, "limit_train_batches must be 1.0, got 0.5. The policy is judged by"),
        ({"fast_dev_run": True}, "limit_train_batches must be 1.0, got 1."),
        ({"overfit_batches": 2}, "overfit_batches must be 0.0, got 2."),
        ({"reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders_every_n_epochs must be 0, got 1."),
        ({"data": {"batch_size": 4}}, "batch_size must be left out, since the policy says which batches come, got 4."),
        ({"data": {"epochs": 0}, "max_epochs": 0}, "epochs must be between 1 and the 26 steps of the policy, got 0."),
    ],
)
def test_settings_that_change_the_batches_are_refused(
    cases: dict[str, HostCase], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        fit(cases["plain"], **settings)


def test_a_module_that_sets_the_rates_is_refused(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    data = PolicyDataModule(case.bundle, case.dataset)
    with pytest.raises(
        ConfigError, match=r"must be an optimizer without a scheduler, got 'ConstantLR'. The policy has"
    ):
        trainer().fit(Classifier(case, scheduler=True), datamodule=data)
    by_hand = Classifier(case)
    by_hand.automatic_optimization = False
    with pytest.raises(ConfigError, match=r"^automatic_optimization must be True, got False. Lightning then steps no"):
        trainer().fit(by_hand, datamodule=data)


def test_one_without_the_other_is_refused(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    data = PolicyDataModule(case.bundle, case.dataset)
    bare = lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ConfigError, match=r"^callbacks must have FollowPolicy\(\) beside a PolicyDataModule."):
        bare.fit(Classifier(case), datamodule=data)
    with pytest.raises(ConfigError, match=r"^datamodule must be a PolicyDataModule, got None."):
        trainer().fit(Classifier(case), DataLoader(case.dataset))


class ReplacesBatches(PolicyDataModule):
    """As code of a user might, to have another loader."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.dataset, batch_size=16)


def test_batches_that_were_replaced_are_refused(cases: dict[str, HostCase]) -> None:
    case = cases["plain"]
    with pytest.raises(TrainingFunctionError, match=r"^the training batches are not those of the policy: something"):
        trainer().fit(Classifier(case), datamodule=ReplacesBatches(case.bundle, case.dataset))


def test_weights_that_nobody_heeds_are_refused(cases: dict[str, HostCase]) -> None:
    with pytest.raises(TrainingFunctionError, match=r"^the policy weighs its examples, .* Ask for weights=True"):
        fit(cases["weighted"], data={"weights": False})
    with pytest.raises(TrainingFunctionError, match="or its batches have uneven slices"):
        fit(cases["uneven"], data={"weights": False}, accumulate_grad_batches=2)


class Stops(Callback):
    """Early stopping."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 5


def test_a_fit_that_stops_early_is_told(cases: dict[str, HostCase]) -> None:
    with pytest.raises(TrainingFunctionError, match=r"^sampler.finish was called after 5 of 26 batches. Train on all"):
        fit(cases["plain"], Stops(), min_epochs=0)


def test_a_checkpoint_of_another_place_is_refused(cases: dict[str, HostCase], tmp_path: Path) -> None:
    case = cases["plain"]
    fit(case, KeepEach(tmp_path), accumulate_grad_batches=2)
    with pytest.raises(TrainingFunctionError, match=r"^the checkpoint must be written right after an update of this"):
        fit(case, ckpt_path=str(tmp_path / "3-6.ckpt"), accumulate_grad_batches=2)
    with pytest.raises(BundleError, match=r"^the state of a sampler must be of this policy, seed and data, got policy"):
        fit(cases["shrunk"], ckpt_path=str(tmp_path / "3-5.ckpt"), accumulate_grad_batches=2)


def test_the_example_runs(tmp_path: Path) -> None:
    folder = str(digits_bundle(tmp_path))
    told = run_script(EXAMPLE, folder, folder=str(tmp_path))
    assert told.endswith("FLOP as promised\n")
    assert len(EXAMPLE.read_text().splitlines()) < 40
