"""Training functions of docs/own_training.md in the frameworks of others, held against a plain one."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any

import own_functions
import torch
from places import ROOT
from torch.nn.utils import parameters_to_vector
from torch.utils.data import Dataset, TensorDataset

from subsettune import config
from subsettune.config import FrozenDict
from subsettune.policy import Phase, Policy
from subsettune.task import Task
from subsettune.train.loop import RunOptions, run

PAGE = (ROOT / "docs" / "own_training.md").read_text()


class Named(Dataset[dict[str, torch.Tensor]]):
    """Examples by name, as transformers takes them."""

    def __len__(self) -> int:
        return own_functions.NUM_EXAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": own_functions.INPUTS[index], "labels": own_functions.TARGETS[index]}


class WithLoss(torch.nn.Module):
    """A network that gives its loss, likewise."""

    def __init__(self) -> None:
        super().__init__()
        self.network = own_functions._network()

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        """Loss and logits; logits alone without labels."""
        logits = self.network(inputs)
        if labels is None:
            return logits
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def assert_same_bits(host: str) -> None:
    """The function of a host, by the code of the page, ends with the weights of the plain function.

    Over a switch that shrinks the weights, which comes a step early where a framework that fetches ahead is believed.
    """
    policy = Policy(
        phases=(Phase(share=0.4, passes=0.9), Phase(passes=1.2, transition="shrink_perturb")),
        recipe=FrozenDict({"lr": 0.2}),
    )
    results = [
        run(_task(name), policy, 5, options=RunOptions(device="cpu", num_threads=1, keep_model=True))
        for name in ("own_functions:plain", f"{_written(host)}:train")
    ]
    plain, hosted = (parameters_to_vector(result.model.parameters()) for result in results)
    assert torch.equal(plain, hosted)
    assert results[0].metrics == results[1].metrics
    assert results[0].ledger == results[1].ledger


def _task(train: str) -> Task:
    recipe = {"lr": 0.1, "momentum": 0.9, "batch_size": 16, "epochs": 4}
    return config.build(
        Task, {"train": train, "examples": own_functions.NUM_EXAMPLES, "recipe": recipe, "tolerance": 0.05}
    )


def _written(host: str) -> str:
    """A module of the code on the page, with the names that it takes for granted."""
    name = f"with_{host}"
    code = re.search(rf"```python\n# {name}\.py\n(.*?)```", PAGE, re.DOTALL)
    assert code is not None, f"the page has no {name}.py"
    module = ModuleType(name)
    numbered = TensorDataset(
        own_functions.INPUTS[: own_functions.NUM_EXAMPLES], own_functions.TARGETS[: own_functions.NUM_EXAMPLES]
    )
    vars(module).update(
        make_network=own_functions._network,
        make_model=WithLoss,
        dataset=numbered if host == "lightning" else Named(),
        accuracy=own_functions.accuracy,
        held_out=own_functions.VALIDATION,
        test=own_functions.TEST,
    )
    exec(code[1], vars(module))
    sys.modules[name] = module
    return name
