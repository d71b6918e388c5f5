"""Training functions as users write them, on tiny data of their own; each is called with a `Run`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from subsettune import Run
from subsettune.config import FrozenDict
from subsettune.models import make
from subsettune.task import Model

NUM_EXAMPLES = 120
_generator = torch.Generator().manual_seed(0)
INPUTS = torch.randn(200, 6, generator=_generator)
TARGETS = (INPUTS[:, 0] + 0.5 * INPUTS[:, 1] > 0).long()
TRAIN, VALIDATION, TEST = slice(0, 120), slice(120, 160), slice(160, 200)
seen: list[Any] = []  # what a test wants to look at afterwards


def _network() -> nn.Module:
    return make(Model(name="mlp", options=FrozenDict({"hidden": (8,)})), (6,), 2)


def accuracy(network: nn.Module, part: slice) -> float:
    """Of the network as it stands."""
    with torch.no_grad():
        return float((network(INPUTS[part]).argmax(1) == TARGETS[part]).double().mean())


def losses(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(b,) of a batch."""
    return nn.functional.cross_entropy(network(inputs), targets, reduction="none")


def step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One update."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def plain(run: Run) -> None:
    """A loader, a scheduler, the switch by network and optimizer, weights, losses for those who ask."""
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=run.recipe.lr, momentum=0.9)
    run.on_switch(network=network, optimizer=optimizer)
    scheduler = run.scheduler(optimizer)
    sampler, numbers = run.batch_sampler(), torch.arange(NUM_EXAMPLES)
    dataset = TensorDataset(INPUTS[TRAIN], TARGETS[TRAIN], numbers)
    for inputs, targets, index in DataLoader(dataset, batch_sampler=sampler):
        each, weights = losses(network, inputs, targets), run.weights
        step(network, optimizer, (each if weights is None else each * torch.from_numpy(weights)).mean())
        run.observe(index, each)
        scheduler.step()
    run.finish(validation=accuracy(network, VALIDATION), test=accuracy(network, TEST), model=network)


def by_hand(run: Run) -> None:
    """A loop of its own over numbers of examples, at rates that it sets; keeps checkpoints, and can be cut off."""
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=run.recipe.lr, momentum=0.9)
    run.on_switch(network=network, optimizer=optimizer)
    if run.resume_from is not None:
        Path(run.options["folder"], "went-on").touch()
        saved = torch.load(run.resume_from)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
    for index, weights in run.batches():
        for group in optimizer.param_groups:
            group["lr"] = run.recipe.lr * run.lr_factor
        each = losses(network, INPUTS[index], TARGETS[index])
        step(network, optimizer, (each if weights is None else each * torch.from_numpy(weights)).mean())
        run.observe(index, each)
        seen.append(index.tolist())
        if run.step % 5 == 4:
            file = Path(run.options["folder"]) / f"{os.getpid()}-{run.seed}.pt"
            torch.save({"network": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
            run.checkpoint(file)
            file.unlink()
        _cut_off(run)
        if run.step % 10 == 9:
            with run.evaluating():
                run.report(accuracy=accuracy(network, VALIDATION))
    run.finish(validation=accuracy(network, VALIDATION), test=accuracy(network, TEST), model=network)


def _cut_off(run: Run) -> None:
    """Die at a step, once, where the options say so: by an exception, or by a signal that nobody can catch."""
    marker = Path(run.options["folder"]) / "was-cut-off"
    if run.step != run.options.get("dies_at") or marker.exists():
        return
    marker.touch()
    if run.options.get("is_killed"):
        os.kill(os.getpid(), 9)
    raise KeyboardInterrupt


def made_up(run: Run) -> None:
    """Nothing is trained: what a policy would reach follows from its steps and its rate, with noise by the seed."""
    steps = sum(len(index) for index, _ in run.batches())
    noise = np.random.default_rng([run.seed, steps]).normal(0, 0.002, 2)
    value = 0.9 - 0.6 * np.exp(-steps / 400) - 0.02 * np.log(run.recipe.lr / 0.1) ** 2
    value -= 0.3 * run.recipe.own.get("dropout", 0.0)
    run.finish(validation=float(value + noise[0]), test=float(value + noise[1]))


def _exhaust(run: Run) -> None:
    for _ in run.steps(run.batch_sampler()):
        pass


def wrong_never_finishes(run: Run) -> None:
    """Trains, and says nothing."""
    _exhaust(run)


def wrong_finishes_twice(run: Run) -> None:
    """Says it again."""
    _exhaust(run)
    run.finish(validation=0.5, test=0.5)
    run.finish(validation=0.5, test=0.5)


def wrong_trains_on_less(run: Run) -> None:
    """Stops after three batches."""
    sampler = iter(run.batch_sampler())
    for _ in range(3):
        next(sampler)
    run.finish(validation=0.5, test=0.5)


def wrong_trains_on_more(run: Run) -> None:
    """Two epochs of a policy that is one."""
    _exhaust(run)
    _exhaust(run)


def wrong_updates_less(run: Run) -> None:
    """Accumulates gradients over two batches, and counts updates."""
    scheduler = run.scheduler(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    for number, _ in enumerate(run.batch_sampler()):
        if number % 2:
            scheduler.optimizer.step()
            scheduler.step()
    run.finish(validation=0.5, test=0.5)


def wrong_changes_the_policy(run: Run) -> None:
    """Gives itself another one."""
    run.policy = None  # type: ignore[assignment]


def wrong_changes_the_recipe(run: Run) -> None:
    """Gives itself another rate."""
    run.recipe.lr = 1.0  # type: ignore[misc]


def wrong_gives_a_vector(run: Run) -> None:
    """A metric of each example."""
    _exhaust(run)
    run.finish(validation=np.ones(3), test=0.5)  # type: ignore[arg-type]


def wrong_reports_another_metric(run: Run) -> None:
    """Misspelt."""
    run.report(acuracy=0.5)


def wrong_reports_nothing(run: Run) -> None:
    """The loss alone."""
    run.report(loss=0.5)


def wrong_ignores_the_switch(run: Run) -> None:
    """Does not carry out the transition."""
    for _ in run.batches():
        pass
    run.finish(validation=0.5, test=0.5)


def wrong_fetches_ahead(run: Run) -> None:
    """As loaders with workers do: the rate that is read is that of a later batch."""
    for _ in _ahead(iter(run.batch_sampler()), 2):
        run.lr_factor  # noqa: B018
    run.finish(validation=0.5, test=0.5)


def wrong_fetches_ahead_over_a_switch(run: Run) -> None:
    """Wants to hear of the switch, and nobody knows which step is trained."""
    run.on_switch(lambda switch: None)
    for _ in _ahead(iter(run.batch_sampler()), 2):
        pass
    run.finish(validation=0.5, test=0.5)


def wrong_observes_nothing(run: Run) -> None:
    """An order that goes by losses gets none."""
    _exhaust(run)


def wrong_observes_others(run: Run) -> None:
    """Losses of examples that were not handed out."""
    for index, _ in run.batches():
        run.observe(index + 1, np.ones(len(index)))


def wrong_ignores_weights(run: Run) -> None:
    """An order weighs its examples, and the losses are those without."""
    for index in run.steps(run.batch_sampler()):
        run.observe(index, np.arange(len(index)))
    run.finish(validation=0.5, test=0.5)


def wrong_weights_of_the_next(run: Run) -> None:
    """Reads them when the scheduler has gone on."""
    scheduler = run.scheduler(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    for _ in run.batch_sampler():
        scheduler.optimizer.step()
        scheduler.step()
        run.weights  # noqa: B018


def wrong_checkpoint(run: Run) -> None:
    """Names a file that is not there."""
    for _ in run.batches():
        run.checkpoint("/nowhere/at/all.pt")


def wrong_on_switch(run: Run) -> None:
    """A network without its optimizer."""
    run.on_switch(network=_network())


def wrong_trains_on_a_list(run: Run) -> None:
    """Takes all batches, and trains on a few of them."""
    list(run.batch_sampler())
    run.finish(validation=0.5, test=0.5)


def wrong_reads_the_rate_once(run: Run) -> None:
    """And goes on with it."""
    for number, _ in enumerate(run.batch_sampler()):
        if not number:
            run.lr_factor  # noqa: B018
    run.finish(validation=0.5, test=0.5)


def wrong_steps_twice(run: Run) -> None:
    """Two steps of the scheduler a batch."""
    scheduler = run.scheduler(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    for _ in run.batch_sampler():
        scheduler.optimizer.step()
        scheduler.step()
        scheduler.step()


def wrong_in_percent(run: Run) -> None:
    """A share that is none."""
    _exhaust(run)
    run.finish(validation=91.0, test=0.9)


def wrong_exits(run: Run) -> None:
    """As programs do at their end."""
    raise SystemExit(0)


def wrong_seeds(run: Run) -> None:
    """Makes all seeds alike."""
    torch.manual_seed(12345)
    _exhaust(run)


def wrong_swallows_the_switch(run: Run) -> None:
    """A broad except around the step hides that the transition was not carried out."""
    scheduler = run.scheduler(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    for _ in run.batch_sampler():
        scheduler.optimizer.step()
        with contextlib.suppress(Exception):
            scheduler.step()
    run.finish(validation=0.5, test=0.5)


def wrong_hears_and_does_nothing(run: Run) -> None:
    """A callback that forgets the transition."""
    run.on_switch(lambda switch: None)
    _exhaust(run)
    run.finish(validation=0.5, test=0.5)


_one_for_all = nn.Linear(6, 2)


def wrong_network_of_the_module(run: Run) -> None:
    """Made once, where the module is imported."""
    run.scheduler(torch.optim.SGD(_one_for_all.parameters(), lr=run.recipe.lr))
    _exhaust(run)
    run.finish(validation=0.5, test=0.5)


def ahead_with_workers(run: Run) -> None:
    """A loader that fetches ahead, a scheduler that counts, and a curve."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = run.scheduler(optimizer)
    for number, _ in enumerate(_ahead(iter(run.batch_sampler()), 4)):
        optimizer.step()
        scheduler.step()
        if number % 5 == 4:
            run.report(accuracy=torch.tensor(0.5, dtype=torch.bfloat16))  # type: ignore[arg-type]
    run.finish(validation=0.5, test=0.5)


def resumes_anywhere(run: Run) -> None:
    """Keeps a checkpoint after each update, before or after the scheduler's step; loads it before on_switch."""
    network = _network()
    optimizer = torch.optim.SGD(network.parameters(), lr=run.recipe.lr, momentum=0.9)
    scheduler = run.scheduler(optimizer)
    if run.resume_from is not None:
        saved = torch.load(run.resume_from)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
    run.on_switch(network=network, optimizer=optimizer)
    folder, keeps_first = Path(run.options["folder"]), run.options["keeps_first"]
    loader = DataLoader(TensorDataset(INPUTS[TRAIN], TARGETS[TRAIN]), batch_sampler=run.batch_sampler())
    for inputs, targets in loader:
        step(network, optimizer, losses(network, inputs, targets).mean())
        made = run.step + 1
        if not keeps_first:
            scheduler.step()
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "scheduler": scheduler.state_dict()}, folder / "real.pt")
        link = folder / "latest.pt"
        link.unlink(missing_ok=True)
        link.symlink_to(folder / "real.pt")
        run.checkpoint(link)
        if keeps_first:
            scheduler.step()
        if made == run.options["dies_after"] and not (folder / "was-cut-off").exists():
            (folder / "was-cut-off").touch()
            raise KeyboardInterrupt
    run.finish(validation=accuracy(network, VALIDATION), test=accuracy(network, TEST), model=network)


def nan_swallowed(run: Run) -> None:
    """A broad except around the end."""
    _exhaust(run)
    with contextlib.suppress(Exception):
        run.finish(validation=float("nan"), test=0.5)


def nan(run: Run) -> None:
    """The metric is no number."""
    _exhaust(run)
    run.finish(validation=float("nan"), test=0.5)


def reports_nan(run: Run) -> None:
    """Likewise on the way."""
    for _ in run.batches():
        run.report(accuracy=float("inf"))


def fails(run: Run) -> None:
    """An error of its own."""
    raise ZeroDivisionError("of the user's own")


def _ahead(batches: Iterator[Any], most: int) -> Iterator[Any]:
    """Fetch so many batches before the first is given out."""
    waiting: list[Any] = []
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > most:
            yield waiting.pop(0)
    yield from waiting


no_function = 3
