"""A bundle followed in Keras on torch: rows, weights, rates, switches, ledger of the promise. By `make test-hosts`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs Keras, and runs by `make test-hosts`", allow_module_level=True)
os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from places import ROOT
from small_bundles import SEED, Followed, digits_bundle, promised, run_example
from torch.utils.data import TensorDataset

from subsettune.errors import ConfigError, TrainingFunctionError
from subsettune.integrations.keras import PolicyCallback
from subsettune.train.follow.sampler import PolicySampler

pytestmark = pytest.mark.filterwarnings("default")  # Keras's own are not ours to mend


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    return digits_bundle(tmp_path_factory.mktemp("switching"))


class Noting(keras.Model):  # type: ignore[misc]
    """A network that notes what it is trained on; the first input of an example is its row."""

    notes: list[dict[str, Any]]

    def train_step(self, data: Any) -> Any:
        x, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        slots = [v.numpy() for v in self.optimizer.variables if v.shape]
        self.notes.append(
            {
                "rows": x[:, 0].cpu().numpy().astype(int).tolist(),
                "weights": np.asarray(weights),
                "lr": float(self.optimizer.learning_rate),
                "is_fresh": not any(slot.any() for slot in slots),
                "kernels": [v.numpy() for v in self.trainable_variables if len(v.shape) == 2],
            }
        )
        found = super().train_step(data)
        self.notes[-1]["after"] = [v.numpy() for v in self.trainable_variables if len(v.shape) == 2]
        return found


def _model(dropout: float = 0.1, **optimizer: Any) -> Noting:
    keras.utils.set_random_seed(SEED)
    given = keras.Input((64,))
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.Dropout(dropout)(given / 16.0))
    model = Noting(given, keras.layers.Dense(10)(keras.layers.BatchNormalization()(hidden)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9, **optimizer), loss=loss)
    model.notes = []
    return model


def _data(made: Followed) -> tuple[np.ndarray, np.ndarray]:
    x = made.inputs.flatten(1).numpy().copy()
    x[:, 0] = np.arange(len(x))
    return x, made.targets.numpy()


def _sampler(made: Followed, **options: Any) -> PolicySampler:
    return made.bundle.batch_sampler(len(made.inputs), **options)


def _assert_the_promise(made: Followed, model: Noting, begin: int = 0) -> None:
    batches, sampler = promised(made.bundle)[begin:], _sampler(made)
    assert len(model.notes) == len(batches)
    for step, ((rows, weights), note) in enumerate(zip(batches, model.notes, strict=True), start=begin):
        assert note["rows"] == rows.tolist()
        assert note["weights"] == pytest.approx(np.ones(len(rows)) if weights is None else weights)
        assert note["lr"] == pytest.approx(0.1 * sampler.lr_factor_at(step))


@pytest.mark.parametrize("kind", ["arrays", "loader", "workers"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_fit_trains_on_the_promise(followed: Followed, kind: str, epochs: int) -> None:
    (x, y), model, sampler = _data(followed), _model(), _sampler(followed)
    policy = PolicyCallback(sampler, model)
    dataset = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    data = policy.data(x, y) if kind == "arrays" else policy.loader(dataset, num_workers=2 * (kind == "workers"))
    steps = None if epochs == 1 else 8  # the last of 4 epochs has 7
    model.fit(data, epochs=epochs, steps_per_epoch=steps, callbacks=[policy], verbose=0, validation_data=(x, y))
    _assert_the_promise(followed, model)
    ledger = sampler.finish()
    assert ledger == sampler.promise
    assert (ledger.forward, ledger.backward) == (followed.ledger.forward, followed.ledger.backward)


def test_transitions_change_model_and_optimizer_right_before_their_step(followed: Followed) -> None:
    model, sampler = _model(), _sampler(followed)
    policy = PolicyCallback(sampler, model)
    model.fit(policy.data(*_data(followed)), callbacks=[policy], verbose=0)
    phases = [sampler.phase_at(step) for step in range(sampler.total_steps())]
    reset, shrunk = phases.index(1), phases.index(2)
    assert [step for step, note in enumerate(model.notes) if note["is_fresh"]] == [0, reset]
    for step, (before, note) in enumerate(zip(model.notes, model.notes[1:], strict=False), start=1):
        for old, new in zip(before["after"], note["kernels"], strict=True):
            assert np.array_equal(old, new) == (step != shrunk)
    for old, new in zip(model.notes[shrunk - 1]["after"], model.notes[shrunk]["kernels"], strict=True):
        assert np.abs(new - 0.6 * old).max() < 0.05
        assert np.abs(new - 0.6 * old).max() > 0


def test_a_saved_model_goes_on(followed: Followed, tmp_path: Path) -> None:
    x, y = _data(followed)
    whole, sampler = _model(dropout=0.0), _sampler(followed)
    policy = PolicyCallback(sampler, whole)
    whole.fit(policy.data(x, y), callbacks=[policy], verbose=0)

    first, sampler = _model(dropout=0.0), _sampler(followed)
    policy = PolicyCallback(sampler, first)
    first.fit(policy.data(x, y), steps_per_epoch=20, callbacks=[policy], verbose=0)
    first.save(tmp_path / "model.keras")
    state = sampler.state_dict()
    assert state["step"] == 20

    second, sampler = keras.models.load_model(tmp_path / "model.keras", {"Noting": Noting}), _sampler(followed)
    second.notes = []
    sampler.load_state_dict(state)
    policy = PolicyCallback(sampler, second)
    with pytest.raises(TrainingFunctionError, match="lr must be given where a run goes on, got None"):
        second.fit(policy.data(x, y), callbacks=[policy], verbose=0)
    sampler = _sampler(followed)
    sampler.load_state_dict(state)
    policy = PolicyCallback(sampler, second, lr=0.1)
    second.fit(policy.data(x, y), callbacks=[policy], verbose=0)
    _assert_the_promise(followed, second, begin=20)
    assert sampler.finish() == sampler.promise
    for old, new in zip(whole.weights, second.weights, strict=True):
        assert np.array_equal(old.numpy(), new.numpy())


def test_accumulated_gradients_are_slices_of_a_batch(followed: Followed) -> None:
    x, y = _data(followed)
    with pytest.raises(ConfigError, match="gradient_accumulation_steps must be 2 as the sampler's accumulate, got 1"):
        PolicyCallback(_sampler(followed, accumulate=2), _model())
    model, sampler = _model(gradient_accumulation_steps=2), _sampler(followed, accumulate=2)
    policy = PolicyCallback(sampler, model)
    model.fit(policy.data(x, y), callbacks=[policy], verbose=0)
    sampler.finish()
    found = [a["rows"] + b["rows"] for a, b in zip(model.notes[::2], model.notes[1::2], strict=True)]
    assert found == [rows.tolist() for rows, _ in promised(followed.bundle)]


def test_batches_that_are_left_out_or_repeated_are_told(followed: Followed) -> None:
    x, y = _data(followed)
    model, sampler = _model(), _sampler(followed)
    policy = PolicyCallback(sampler, model)
    model.fit(policy.data(x, y), steps_per_epoch=5, callbacks=[policy], verbose=0)
    with pytest.raises(TrainingFunctionError, match=r"sampler\.finish was called after 5 of 31 batches"):
        sampler.finish()
    model.fit(policy.data(x, y), callbacks=[policy], verbose=0)  # the rest
    sampler.finish()
    with pytest.raises(TrainingFunctionError, match="epoch 1 begins behind the last of 31 steps"):
        model.fit(policy.data(x, y), callbacks=[policy], verbose=0)

    model, sampler = _model(), _sampler(followed)
    policy = PolicyCallback(sampler, model)
    with pytest.raises(TrainingFunctionError, match="epoch 2 begins behind the last of 31 steps"):
        model.fit(policy.loader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y))), epochs=2, callbacks=[policy])

    model, sampler = _model(), _sampler(followed)
    model.fit(PolicyCallback(sampler, model).data(x, y), verbose=0)  # without the callback: one batch again and again
    with pytest.raises(TrainingFunctionError, match=r"sampler\.finish was called after 1 of 31 batches"):
        sampler.finish()


def test_what_cannot_be_followed_is_told(followed: Followed) -> None:
    unbuilt = keras.Sequential([keras.layers.Dense(10)])
    unbuilt.compile(optimizer="sgd", loss="mse")
    with pytest.raises(ConfigError, match=r"^model must be built, got 'sequential.*'. Begin it with keras.Input"):
        PolicyCallback(_sampler(followed), unbuilt)
    with pytest.raises(ConfigError, match=r"^model must be compiled"):
        PolicyCallback(_sampler(followed), keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)]))
    with pytest.raises(ConfigError, match=r"^world_size must be 1 with Keras, got 2"):
        PolicyCallback(_sampler(followed, world_size=2), _model())
    model = _model()
    policy = PolicyCallback(_sampler(followed), model)
    with pytest.raises(TrainingFunctionError, match="another model"):
        _model().fit(policy.data(*_data(followed)), callbacks=[policy], verbose=0)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_another_backend_is_refused_in_a_sentence(backend: str) -> None:
    code = "import subsettune.integrations.keras"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert f"ConfigError: KERAS_BACKEND must be torch, got '{backend}'. Set it before" in done.stderr


def test_neither_ray_nor_optuna_is_loaded() -> None:
    code = "import sys, subsettune.integrations.keras; print(sorted({'ray', 'optuna'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_example_spends_the_promise(followed: Followed, tmp_path: Path) -> None:
    promise = _sampler(followed).promise
    assert run_example("keras_fit", followed.folder, tmp_path).splitlines()[-1] == str(promise)
