"""The one training loop: the conventional recipe, every policy, every trial and every bundle run through `run`.

Compute decides when things happen. A phase ends at the first update boundary at or after its allowance, and its excess
is taken from the next; the run ends before the update that would exceed the policy's total. So the ledger never exceeds
`policy.cost(facts)`, and falls short of it by less than one update.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
import torch
from torch import Tensor, nn

from subsettune import config, models, select
from subsettune.config import AT_LEAST_ONE, NOT_EMPTY, POSITIVE, FrozenDict, setting
from subsettune.data import Part, Places, TaskData, load
from subsettune.data.augment import make_augment
from subsettune.errors import ConfigError
from subsettune.ledger import Ledger
from subsettune.policy import Policy, TaskFacts
from subsettune.storage import Folder
from subsettune.task import Recipe, Task
from subsettune.train import entry, flops, metrics, optimizers, order, schedule
from subsettune.train.checkpoint import Checkpoints
from subsettune.train.randomness import capture, derive, generator, isolated, restore
from subsettune.train.result import Cause, CurvePoint, RunResult

Report = Callable[[CurvePoint], bool]
EVALUATION_BATCH = 1024  # examples; a multiple of what fits caches, small enough for a GPU that also trains
CHECK_EVERY = 25  # updates between looks at the running loss, which would force a device to synchronise
MARK_EVERY_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What does not change the result of a run, except `num_threads` and `device`, which change its bits.

    Args:
        splits: which splits the final weights are measured on.
        evaluations: points of the learning curve, at equal shares of the policy's compute.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        num_threads: CPU threads of torch; null leaves them as they are.
        checkpoints: folder or URI; null for none. A run that finds its checkpoint there goes on from it.
        checkpoint_every_s: seconds between checkpoints, besides those at each switch and at the end.
        keep_model: whether the result carries the trained network.
        places: where this machine keeps data.
        fingerprint: of the data as the caller knows it; a worker then need not read the source.
    """

    splits: tuple[str, ...] = setting(("validation",), rule=NOT_EMPTY)
    evaluations: int = setting(10, rule=AT_LEAST_ONE)
    device: str = "auto"
    num_threads: int | None = setting(None, rule=AT_LEAST_ONE)
    checkpoints: str | None = None
    checkpoint_every_s: float = setting(30.0, rule=POSITIVE)
    keep_model: bool = False
    places: Places = setting(Places())
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        config.check(self)


def run(
    task: Task,
    policy: Policy,
    seed: int,
    *,
    report: Report | None = None,
    clock: Callable[[], float] = time.perf_counter,
    options: RunOptions | None = None,
) -> RunResult:
    """Train the task's network by a policy.

    The same task, data, policy, seed and number of threads give the same bits on the CPU, interrupted or not. The
    caller's global random state and number of threads come back as they were.

    Args:
        task: what is trained.
        policy: how compute is spent; `conventional(facts)` is the recipe as it stands.
        seed: of everything random in the run.
        report: called with each point of the learning curve; True stops the run.
        clock: seconds, for the times in the result only.
        options: where and how it runs.

    Returns:
        The result; a loss that leaves the finite numbers ends the run with the cause `diverged`, not with an exception.

    Raises:
        ConfigError, DataError, ModelError, SelectionError: before the first update.
        CheckpointError: the checkpoint of this run is damaged.
    """
    options = options or RunOptions()
    data = load(task, options.places, fingerprint=options.fingerprint)
    threads = options.num_threads or torch.get_num_threads()
    with isolated(seed, threads):
        return _Run(task, policy, seed, data, options, clock, report).train()


def facts(task: Task, places: Places | None = None, fingerprint: str | None = None) -> TaskFacts:
    """Resolve a task: load its data, build its network, count its FLOPs.

    Raises:
        DataError, ModelError, ConfigError: the task cannot be trained.
    """
    return _facts(task, load(task, places or Places(), fingerprint=fingerprint))


def run_key(task: Task, fingerprint: str, policy: Policy, seed: int) -> str:
    """Content hash that names the checkpoint of a run."""
    return config.digest({"task": task, "data": fingerprint, "policy": policy, "seed": seed})


def _facts(task: Task, data: TaskData) -> TaskFacts:
    return _cached_facts(task, data.fingerprint, functools.partial(_count_facts, task, data))


_FACTS: dict[tuple[str, str], TaskFacts] = {}


def _cached_facts(task: Task, fingerprint: str, count: Callable[[], TaskFacts]) -> TaskFacts:
    key = (task.key, fingerprint)
    if key not in _FACTS:
        _FACTS[key] = count()
    return _FACTS[key]


def _count_facts(task: Task, data: TaskData) -> TaskFacts:
    with isolated(0, torch.get_num_threads()):  # initialising the network draws random numbers
        network = models.make(task.model, data.input_shape, data.num_outputs)
    forward, backward = flops.count(network, data.input_shape, data.num_outputs, task.model.name)
    counts = [int(c) for c in data.class_counts] if data.num_classes else []
    return TaskFacts(
        num_examples=len(data.train),
        num_outputs=data.num_outputs,
        num_parameters=models.num_parameters(network),
        forward_flops=forward,
        backward_flops=backward,
        reference_passes=task.recipe.epochs,
        num_features=math.prod(data.input_shape),
        num_classes=data.num_classes,
        smallest_class=min(counts, default=0),
    )


def check(task: Task, policy: Policy, facts: TaskFacts) -> Recipe:
    """Check everything about a policy that can be checked before the first step; returns the recipe it trains with.

    Raises:
        ConfigError: an unknown or impossible component, or a selection that costs more than its phase may spend.
    """
    recipe = task.recipe.override(policy.recipe)
    schedule.make(recipe.schedule, recipe.schedule_options)
    for index, phase in enumerate(policy.phases):
        entry.make(phase.entry, phase.entry_options)
        order.make(phase.order, facts.num_examples, recipe.batch_size, 0)
        if index == 0 and phase.entry != "keep":
            raise ConfigError(
                f"entry of the first phase must be keep, got {phase.entry!r}. There is nothing to enter from."
            )
        if phase.order != policy.phases[0].order:
            raise ConfigError("all phases of a policy must have the same order. Give each phase the same one.")
    problem = select.check(policy, facts)
    if problem is not None:
        raise ConfigError(problem)
    return recipe


class _Run:
    """State of one run. Times in seconds, compute in FLOPs; `spent` is selection and training."""

    def __init__(
        self,
        task: Task,
        policy: Policy,
        seed: int,
        data: TaskData,
        options: RunOptions,
        clock: Callable[[], float],
        report: Report | None,
    ) -> None:
        self.task, self.policy, self.seed, self.options = task, policy, seed, options
        self.clock, self.report = clock, report
        self.facts = _facts(task, data)
        self.recipe = check(task, policy, self.facts)
        self.device = _device(options.device)
        self.data = data
        self.train_part = data.train.to(self.device)
        self.total = policy.cost(self.facts)
        self.ends = policy.boundaries(self.facts)
        self.train_total = self.total - sum(select.selection_flops(p, self.facts) for p in policy.phases)
        self.schedule = schedule.make(self.recipe.schedule, self.recipe.schedule_options)
        self.order = order.make(policy.phases[0].order, len(data.train), self.recipe.batch_size, seed)
        self.augment_rng = generator(seed, "augment", device=self.device)
        self.augment = make_augment(self.recipe.augment, data.input_shape, self.augment_rng)
        self.checkpoints = self._find_checkpoints()
        self._build()
        # What changes as the run goes on, all of it in the checkpoint.
        self.phase, self.updates, self.examples, self.selected, self.evaluated = -1, 0, 0, 0, 0
        self.pool: Tensor | None = None
        self.weights: Tensor | None = None
        self.curve: list[CurvePoint] = []
        self.switches: list[float] = []
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
        self.metrics: dict[str, float] = {}
        self.done, self.repeated = False, 0
        self.seconds = {"train": 0.0, "select": 0.0, "evaluate": 0.0, "other": 0.0}
        self._lap_start = clock()
        self._last_checkpoint = self._last_mark = self._lap_start

    def _find_checkpoints(self) -> Checkpoints | None:
        if self.options.checkpoints is None:
            return None
        key = run_key(self.task, self.data.fingerprint, self.policy, self.seed)
        return Checkpoints(Folder.at(self.options.checkpoints), key)

    def _build(self) -> None:
        network = models.make(self.task.model, self.data.input_shape, self.data.num_outputs)
        self.scales = entry.scales(network) if any(p.entry != "keep" for p in self.policy.phases) else {}
        images_on_gpu = self.device.type == "cuda" and len(self.data.input_shape) == 3
        self.layout = torch.channels_last if images_on_gpu else torch.contiguous_format
        self.network: nn.Module = network.to(self.device, memory_format=self.layout).train()
        self.optimizer = optimizers.make(self.recipe, self.network)
        precision = self.recipe.precision
        self.low_precision = precision == "bfloat16" or (precision == "auto" and self.device.type == "cuda")

    # --- account -------------------------------------------------------------------------------------------------

    @property
    def spent(self) -> int:
        return self.selected + self.examples * self.facts.example_flops

    def _ledger(self) -> Ledger:
        return Ledger(
            select=self.selected,
            forward=self.examples * self.facts.forward_flops,
            backward=self.examples * self.facts.backward_flops,
            evaluate=self.evaluated * self.facts.forward_flops,
        )

    def _lap(self, purpose: str) -> None:
        """Charge the time since the last lap to a purpose."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = self.clock()
        self.seconds[purpose] += now - self._lap_start
        self._lap_start = now

    # --- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> RunResult:
        self._resume()
        self._lap("other")
        cause: Cause = "finished"
        if not self.done:
            cause = self._updates()
        if cause == "finished":
            cause = self._finish()
        return self._result(cause)

    def _updates(self) -> Cause:
        """Update until the compute is used up, the loss diverges, or the caller stops the run."""
        next_evaluation = self._next_evaluation()
        while True:
            self._advance()
            batch = self.order.next()
            if self.spent + len(batch) * self.facts.example_flops > self.total:
                self._lap("train")
                return "finished" if self._is_finite() else "diverged"
            self._update(batch)
            if self.updates % CHECK_EVERY == 0 and not self._is_finite():
                self._lap("train")
                return "diverged"
            if self.spent >= next_evaluation and self.spent < self.total:
                cause = self._look()
                if cause is not None:
                    return cause
                next_evaluation = self._next_evaluation()
            if self.checkpoints is not None:
                self._keep_safe(self.checkpoints)

    def _next_evaluation(self) -> int:
        """FLOPs at which the next point of the curve is due; the last point is made by `_finish`."""
        n = self.options.evaluations
        done = self.spent * n // self.total
        return -(-(done + 1) * self.total // n)

    def _advance(self) -> None:
        """Enter the phase that the compute spent so far belongs to."""
        while self.phase < 0 or (self.phase + 1 < len(self.ends) and self.spent >= self.ends[self.phase]):
            self.phase += 1
            if self.phase + 1 < len(self.ends) and self.spent >= self.ends[self.phase]:
                continue  # nothing left of this phase's allowance: do not pay for its selection
            self._enter()

    def _enter(self) -> None:
        phase = self.policy.phases[self.phase]
        self._lap("train")
        if self.phase > 0:
            rng = generator(self.seed, "entry", self.phase)
            entry.make(phase.entry, phase.entry_options).apply(self.network, self.optimizer, self.scales, rng)
            self.switches.append(self.spent / self.total)
        self.pool, self.weights = None, None
        if not phase.is_full:
            self._select()
        self.order.enter(self.pool)
        self._lap("select")
        if self.phase > 0 and self.checkpoints is not None:
            self._save(self.checkpoints)

    def _select(self) -> None:
        subset = choose(self.policy, self.phase, self.seed, self.data, self.facts, self.device)
        self.selected += select.selection_flops(self.policy.phases[self.phase], self.facts)
        self.pool = subset.positions.cpu()
        if subset.weights is not None:
            weights = torch.ones(len(self.data.train))
            weights[self.pool] = subset.weights.cpu() / subset.weights.mean().cpu()
            self.weights = weights.to(self.device)

    def _update(self, batch: Tensor) -> None:
        used = self.spent - self.selected
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * self.schedule(used / self.train_total)
        batch = batch.to(self.device, non_blocking=True)
        inputs, targets = self.train_part.batch(batch)
        if self.augment is not None:
            inputs = self.augment(inputs)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low_precision):
            outputs = self.network(inputs.contiguous(memory_format=self.layout) if inputs.dim() == 4 else inputs)
            loss = self._loss(outputs.float(), targets, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.loss_sum += loss.detach()
        self.loss_count += 1
        self.updates += 1
        self.examples += len(batch)

    def _loss(self, outputs: Tensor, targets: Tensor, batch: Tensor) -> Tensor:
        if self.task.kind == "regression":
            targets = (targets - self.data.target_mean) / self.data.target_std
        weights = None if self.weights is None else self.weights[batch]
        return metrics.loss(self.task, outputs, targets, self.recipe.label_smoothing, weights)

    def _is_finite(self) -> bool:
        return bool(torch.isfinite(self.loss_sum))  # a sum stays infinite or NaN once a loss was

    # --- looking -------------------------------------------------------------------------------------------------

    def _look(self) -> Cause | None:
        """Measure the validation split at a share of the compute, tell the caller; a cause if the run must end."""
        self._lap("train")
        n = self.options.evaluations
        metric = self._measure("validation")
        if not math.isfinite(metric):
            return "diverged"
        return "stopped" if self._tell((self.spent * n // self.total) / n, metric) else None

    def _tell(self, share: float, metric: float) -> bool:
        loss = float(self.loss_sum) / max(1, self.loss_count)
        point = CurvePoint(
            share=share,
            flops=self.spent,
            phase=self.phase,
            metric=metric,
            loss=loss if math.isfinite(loss) else None,
            seconds=self.seconds["train"] + self.seconds["select"],
        )
        self.curve.append(point)
        self.loss_sum, self.loss_count = torch.zeros((), device=self.device), 0
        stop = self.report(point) if self.report is not None else False
        self._lap("other")
        return stop

    def _measure(self, split: str) -> float:
        part: Part = getattr(self.data, split).to(self.device)
        outputs, targets = predict(self.network, part, self.layout, self.low_precision)
        self.evaluated += len(part)
        if self.task.kind == "regression":
            outputs = outputs.reshape(targets.shape) * self.data.target_std + self.data.target_mean
        value = metrics.metric(self.task.metric, outputs, targets, self.data.num_outputs)
        self._lap("evaluate")
        return value

    def _finish(self) -> Cause:
        """Measure the final weights on every split asked for; splits measured before an interruption are kept."""
        for split in ("validation", *(s for s in self.options.splits if s != "validation")):
            if split in self.metrics:
                continue
            value = self._measure(split)
            if not math.isfinite(value):
                return "diverged"
            self.metrics[split] = value
            if split == "validation":
                self._tell(1.0, value)
        self.done = True
        if self.checkpoints is not None:
            self._save(self.checkpoints)
        return "finished"

    def _result(self, cause: Cause) -> RunResult:
        diverged = (
            f"The loss left the finite numbers after {self.updates} updates, at learning rate {self.recipe.lr:g}."
        )
        message = {"diverged": diverged, "stopped": "Stopped by the caller.", "finished": ""}[cause]
        return RunResult(
            policy=self.policy,
            seed=self.seed,
            cause=cause,
            message=message,
            metrics=FrozenDict(self.metrics if cause == "finished" else {}),
            ledger=self._ledger(),
            repeated_flops=self.repeated,
            updates=self.updates,
            curve=tuple(self.curve),
            train_s=self.seconds["train"],
            select_s=self.seconds["select"],
            evaluate_s=self.seconds["evaluate"],
            device=self.device.type,
            num_threads=torch.get_num_threads(),
            switch_shares=tuple(self.switches),
            model=self.network.cpu() if self.options.keep_model else None,
        )

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _keep_safe(self, checkpoints: Checkpoints) -> None:
        now = self.clock()
        if now - self._last_checkpoint >= self.options.checkpoint_every_s:
            self._lap("train")
            self._save(checkpoints)
        elif now - self._last_mark >= MARK_EVERY_S:
            checkpoints.mark(self.spent)
            self._last_mark = now

    def _save(self, checkpoints: Checkpoints) -> None:
        plain = {name: getattr(self, name) for name in _PLAIN_STATE}
        checkpoints.save(
            {
                **plain,
                "curve": [config.to_plain(point) for point in self.curve],
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "order": self.order.state(),
                "random": capture(),
                "augment": self.augment_rng.get_state(),
            }
        )
        checkpoints.mark(self.spent)
        self._lap("other")
        self._last_checkpoint = self._last_mark = self._lap_start

    def _resume(self) -> None:
        state = self.checkpoints.load() if self.checkpoints is not None else None
        if state is None or self.checkpoints is None:
            return
        for name in _PLAIN_STATE:
            setattr(self, name, state[name])
        self.loss_sum = self.loss_sum.to(self.device)
        self.weights = None if self.weights is None else self.weights.to(self.device)
        self.curve = [config.build(CurvePoint, point) for point in state["curve"]]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.load(state["order"], self.pool)
        self.augment_rng.set_state(state["augment"])
        restore(state["random"])
        self.repeated += max(0, self.checkpoints.marked() - self.spent)
        if not self.done:
            self.checkpoints.mark(self.spent)


_PLAIN_STATE = (
    *("phase", "updates", "examples", "selected", "evaluated", "pool", "weights", "switches", "scales"),
    *("loss_sum", "loss_count", "metrics", "done", "repeated", "seconds"),
)


def choose(
    policy: Policy, phase: int, seed: int, data: TaskData, facts: TaskFacts, device: torch.device | str = "cpu"
) -> select.Subset:
    """The subset that a run with `seed` trains on in a phase: the same call gives the same examples.

    Raises:
        SelectionError: the selector cannot choose so many.
    """
    settings = policy.phases[phase]
    selector = select.make(settings.selector, settings.selector_options)
    context = select.SelectionContext(part=data.train, facts=facts, device=torch.device(device))
    rng = generator(seed, "select", phase)
    return selector.select(context, settings.pool_size(facts.num_examples), rng=rng)


@torch.no_grad()
def predict(
    network: nn.Module, part: Part, layout: torch.memory_format = torch.contiguous_format, low_precision: bool = False
) -> tuple[Tensor, Tensor]:
    """Outputs of a network over a part of the data, in evaluation mode; the mode comes back as it was.

    Returns:
        outputs (n, M) float32 and targets (n,), in the part's order, on the part's device.
    """
    was_training = network.training
    network.eval()
    outputs, targets = [], []
    for start in range(0, len(part), EVALUATION_BATCH):
        index = torch.arange(start, min(start + EVALUATION_BATCH, len(part)), device=part.device)
        inputs, target = part.batch(index)
        inputs = inputs.contiguous(memory_format=layout) if inputs.dim() == 4 else inputs
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=low_precision):
            outputs.append(network(inputs).float())
        targets.append(target)
    network.train(was_training)
    return torch.cat(outputs), torch.cat(targets)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device must be cpu here, got 'cuda': torch finds no GPU. Use device auto.")
    return torch.device(name)


__all__ = ["Report", "RunOptions", "check", "choose", "derive", "facts", "predict", "run", "run_key"]
