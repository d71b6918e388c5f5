from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import random_state
from fakes import image_task, options, same_bits
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from subsettune import train
from subsettune.data import load
from subsettune.errors import ConfigError
from subsettune.policy import Phase, Policy
from subsettune.train.planning import check
from subsettune.train.randomness import isolated, preserved
from subsettune.train.surroundings import neutral

pytestmark = pytest.mark.usefixtures("untouched_random_state")
CNN = {"name": "cnn", "channels": [4], "hidden": 8, "dropout": 0.2}
HERE = "tests.train.test_surroundings"


def drawing(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A user's own, which is tried before it runs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.2), nn.Linear(8, num_outputs))


@contextlib.contextmanager
def set_to(write: Callable[[Any], Any], value: Any, before: Any) -> Iterator[None]:
    write(value)
    try:
        yield
    finally:
        write(before)


class Counting(TorchFunctionMode):
    """Calls every function of torch as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextlib.contextmanager
def nested_autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", torch.bfloat16):
        layer = nn.utils.skip_init(nn.Linear, 2, 2)
        layer(torch.zeros(1, 2))  # a cast that is kept
        yield
        assert layer(torch.zeros(1, 2)).dtype == torch.bfloat16, "autocast is on again"


@contextlib.contextmanager
def meta_device() -> Iterator[None]:
    with torch.device("meta"):
        yield
        assert torch.zeros(1).device.type == "meta", "the device is back"


@contextlib.contextmanager
def anomaly_mode() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            yield
            assert torch.is_anomaly_enabled()


AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "autocast": nested_autocast,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "grad_off": lambda: set_to(torch._C._set_grad_enabled, False, True),
    "float64": lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: set_to(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "meta": meta_device,
    "default_meta": lambda: set_to(torch.set_default_device, "meta", None),
    "deterministic": lambda: set_to(torch.use_deterministic_algorithms, True, False),
    "anomaly": anomaly_mode,
    "medium": lambda: set_to(torch.set_float32_matmul_precision, "medium", "highest"),
    "no_mkldnn": lambda: set_to(torch._C._set_mkldnn_enabled, False, torch._C._get_mkldnn_enabled()),
    "denormals": lambda: set_to(torch.set_flush_denormal, True, False),
    "function_mode": Counting,
    "numpy_raises": lambda: np.errstate(all="raise"),
    "warnings": warnings_as_errors,
    "threads_off": lambda: torch.autograd.set_multithreading_enabled(False),
}


def run(model: dict[str, Any], data: dict[str, str], seed: int = 0, **recipe: Any) -> nn.Module:
    check._FACTS.clear()
    task = image_task(data, model, **recipe)
    result = train.run(task, Policy(phases=(Phase(passes=2),)), seed, options=options(keep_model=True))
    assert result.cause == "finished"
    assert result.model is not None
    return result.model


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("model", [CNN, {"name": f"{HERE}:drawing"}], ids=["cnn", "own"])
def test_a_run_is_what_it_is_in_a_fresh_process(tiny_data: dict[str, str], around: str, model: dict[str, Any]) -> None:
    plain = run(model, tiny_data)
    with AROUND[around]():
        found = run(model, tiny_data)
    assert same_bits(plain, found)


@pytest.mark.parametrize("around", ["autocast", "no_grad"])
def test_low_precision_is_the_recipe_s_alone(tiny_data: dict[str, str], around: str) -> None:
    plain = run(CNN, tiny_data, precision="bfloat16")
    with AROUND[around]():
        found = run(CNN, tiny_data, precision="bfloat16")
    assert same_bits(plain, found)
    assert not same_bits(plain, run(CNN, tiny_data))


@pytest.mark.parametrize("around", AROUND)
def test_facts_are_the_same_everywhere(tiny_data: dict[str, str], around: str) -> None:
    task = image_task(tiny_data, CNN)
    plain = train.facts(task)
    check._FACTS.clear()
    with AROUND[around]():
        assert train.facts(task) == plain


def settings() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_anomaly_enabled(),
        torch.zeros(()).device.type,
        torch._C._get_mkldnn_enabled(),
        bool((torch.tensor([1e-310], dtype=torch.float64, device="cpu") * 1.0 == 0).item()),
        tuple(sorted(np.geterr().items())),
    )


@pytest.mark.parametrize("around", AROUND)
def test_the_caller_s_settings_come_back_after_an_error_too(around: str) -> None:
    fresh = settings()
    with AROUND[around]():
        before = settings()
        with contextlib.suppress(KeyboardInterrupt), neutral():
            inside = settings()
            torch.set_default_dtype(torch.float64)  # as user code may
            raise KeyboardInterrupt
        assert settings() == before
    assert inside == fresh


def test_fake_tensors_are_refused(tiny_data: dict[str, str]) -> None:
    want = r"^tensors must be real ones in a run, got FakeTensorMode\. Call it outside of that mode\.$"
    with FakeTensorMode(), pytest.raises(ConfigError, match=want):
        train.facts(image_task(tiny_data))


# --- threads ---------------------------------------------------------------------------------------------------------


def test_runs_in_threads_are_those_that_come_one_after_another(tiny_data: dict[str, str]) -> None:
    seeds = range(3)
    alone = [run(CNN, tiny_data, seed) for seed in seeds]
    before, found = random_state(), dict[int, nn.Module]()
    threads = [threading.Thread(target=lambda s=s: found.update({s: run(CNN, tiny_data, s)})) for s in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(alone[seed], found[seed]) for seed in seeds)
    assert random_state() == before


def test_a_thread_waits_for_another_s_run_and_nests_in_its_own() -> None:
    entered, order = threading.Event(), []

    def other() -> None:
        entered.set()
        with preserved():
            order.append("other")

    with isolated(0, 1), isolated(1, 1), preserved():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(10)
        thread.join(0.2)
        order.append("own")
    thread.join(10)
    assert order == ["own", "other"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_that_is_forked_during_another_thread_s_run_can_run() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with neutral():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forking beside threads, from Python 3.12 on
        child = multiprocessing.get_context("fork").Process(target=_enter_and_leave)
        child.start()
    child.join(20)
    code = child.exitcode
    if code is None:
        child.kill()
    leave.set()
    thread.join(10)
    assert code == 7


def _enter_and_leave() -> None:
    with neutral():
        os._exit(7)


# --- imports ---------------------------------------------------------------------------------------------------------

DRAWS = """
import random, numpy, torch
DRAWN = torch.rand(1), random.random(), numpy.random.rand()
def sgd(params, lr):
    {first_call}
    return torch.optim.SGD(params, lr=lr)
"""


@pytest.mark.parametrize("is_known", [False, True])
def test_a_module_that_draws_when_it_is_imported_does_not_change_the_first_run(
    tiny_data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """Also where the caller has tried it, as a study has, and this process has not imported it."""
    name, late = f"draws_{is_known}", "import draws_late"
    (tmp_path / f"{name}.py").write_text(DRAWS.format(first_call="" if is_known else late))
    (tmp_path / "draws_late.py").write_text("import torch\ntorch.rand(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    task = image_task(tiny_data, CNN)
    policy = Policy(phases=(Phase(passes=2),), recipe={"optimizer": f"{name}:sgd"})
    settings = options(keep_model=True, fingerprint=load(task).fingerprint if is_known else None)
    assert name not in sys.modules
    first, again = (train.run(task, policy, 0, options=settings).model for _ in range(2))
    assert first is not None
    assert again is not None
    assert same_bits(first, again)
