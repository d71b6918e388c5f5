"""One training on rows in memory, by a bundle, a policy or the recipe alone: what hosts of estimators have in common.

Rows are the host's, so that a bundle's examples are never among them: its sizes are derived anew, and subsets chosen
anew, all within the run, which pays for them. All rows are trained on: nothing is held out, and nothing is measured.
"""

from __future__ import annotations

import inspect
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subsettune import config, models, plugins
from subsettune.bundle import Bundle, read_policy
from subsettune.bundle.limits import changed_settings, limits
from subsettune.config import FrozenDict
from subsettune.data import TaskData
from subsettune.data.matrix import Standardizer, part_of, task_data
from subsettune.errors import BundleError, ConfigError, ModelDivergedError
from subsettune.facts import TaskFacts
from subsettune.ledger import Ledger
from subsettune.models.given import Given
from subsettune.policy import Policy, conventional, transfer
from subsettune.registry import MODELS, OPTIMIZERS
from subsettune.task import Model, Recipe, Task
from subsettune.task.data import NO_DATA
from subsettune.task.recipe import OPTIMIZER_KEYS
from subsettune.train.job import RunJob, find_device
from subsettune.train.learner import predict
from subsettune.train.loop import run_job
from subsettune.train.options import RunOptions
from subsettune.train.planning.check import count_facts, recounted, resolve_checked
from subsettune.train.randomness import preserved
from subsettune.train.result import CurvePoint

# Of a network of which nothing is known: good on small tables of numbers, and no better than that.
RECIPE: Mapping[str, Any] = {"optimizer": "adamw", "lr": 0.005, "batch_size": 32, "epochs": 40}
LOOKS = 1000  # at the clock, of a training with a budget of seconds
LINES = 10  # of a training that tells how far it is
KEPT = 64  # networks whose FLOPs are remembered
MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # parameters that take whatever is given
OF_FEATURES = {"in", "input", "inputs", "feature", "features"}  # words of names, as `in_features` has
OF_OUTPUTS = {"out", "output", "outputs", "class", "classes", "labels", "targets"}
NO_EVIDENCE = "The policy is no bundle: nothing shows that it matches the recipe, on these rows or on others."
_COUNTED: OrderedDict[str, TaskFacts] = OrderedDict()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """What a host asks for.

    Args:
        policy: a bundle or its folder, a policy, a mapping or a JSON file of one; None for the recipe as it stands.
        module: a network by name or as `package.module:function`, a function or class that builds one, or one that is
            copied; None for the bundle's, else `mlp`.
        module_options: of the function.
        recipe: settings in place of the bundle's, or of `RECIPE`.
        seed: of everything random.
        time_budget_s: seconds after which training stops; None for no end but the policy's.
        device: as of `RunOptions`.
        num_threads: likewise.
        tell: called with a line now and then; None for silence.
    """

    policy: Any = None
    module: Any = None
    module_options: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any]
    seed: int
    time_budget_s: float | None = None
    device: str = "auto"
    num_threads: int | None = None
    tell: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What came of it.

    Args:
        network: on the CPU, in evaluation mode.
        standardizer: of the rows.
        target_mean: of a regression's values, by which its outputs are in their units; 0 else.
        target_std: likewise; 1 else.
        target_shape: () of classes and of one value a row, (m,) of more.
        is_own: whether the network is the user's own.
        policy: as it was carried out.
        recipe: as it was trained by.
        facts: of the task.
        ledger: FLOPs that were spent.
        plain_flops: that the recipe as it stands would have cost.
        is_complete: whether the policy was carried out to its end.
        limits: sentences on what differs from the bundle's evidence.
        updates: of the optimizer.
        seconds: from the first look at the rows.
    """

    network: nn.Module
    standardizer: Standardizer
    target_mean: float | Tensor
    target_std: float | Tensor
    target_shape: tuple[int, ...]
    is_own: bool
    policy: Policy
    recipe: Recipe
    facts: TaskFacts
    ledger: Ledger
    plain_flops: int
    is_complete: bool
    limits: tuple[str, ...]
    updates: int
    seconds: float

    def outputs(self, x: NDArray[Any], device: str) -> Tensor:
        """(n, M) float32 logits for (n, d) rows, or float64 values in their units, (n,) or (n, m) as they were."""
        where = find_device(device)
        part = part_of(self.standardizer(x), torch.zeros(len(x), dtype=torch.int64))
        try:
            outputs = predict(self._predictor().to(where), part.to(where))[0].cpu()
        finally:
            self.network.cpu()
        if self.facts.num_classes:
            return outputs
        values = outputs.reshape(len(x), -1).double() * self.target_std + self.target_mean
        return values.reshape(len(x), *self.target_shape)

    def _predictor(self) -> nn.Module:
        """The network; for values one that computes in float64, so that a row gets the same beside whatever others.

        A network of the user's own may not be able to.
        """
        if self.facts.num_classes or self.is_own:
            return self.network
        exact = models.copy_of(self.network).double()
        exact.register_forward_pre_hook(lambda _, given: (given[0].double(),))
        return exact


def train(request: Request, x: NDArray[Any], labels: NDArray[Any], class_names: tuple[str, ...] = ()) -> Trained:
    """Train a network on rows.

    Args:
        request: how.
        x: (n, d) finite numbers.
        labels: (n,) int64 places in `class_names`; (n,) or (n, m) values of a regression.
        class_names: empty for a regression.

    Raises:
        ConfigError, DataError, BundleError, ModelError: something does not fit, before the first update.
        ModelDivergedError: the loss or a weight left the finite numbers.
    """
    start = time.perf_counter()
    budget = request.time_budget_s
    if budget is not None and not budget > 0:
        raise ConfigError(config.must("time_budget_s", "positive, or None", budget, "It is in seconds."))
    device = find_device(request.device)
    bundle, policy = source_of(request.policy)
    kind = "classification" if class_names else "regression"
    _refuse_other_tasks(bundle, kind)
    network = _network(request, bundle)
    recipe, policy, changed = _recipe(request.recipe, bundle, policy)
    task = Task(
        data=NO_DATA,
        model=network.model if isinstance(network, Given) else network,
        recipe=recipe,
        metric="accuracy" if class_names else "mse",  # nothing is measured
        tolerance=0.5,
        loss=None if bundle is None else bundle.task.loss,
    )
    standardizer = Standardizer.fit(x)
    data = task_data(standardizer(x), labels[:, 0] if labels.shape[1:] == (1,) else labels, class_names)
    with preserved():
        facts = _facts(task, data)
        carried_out, limits = derived(bundle, policy, facts)
        resolved = resolve_checked(task, carried_out, facts)
        OPTIMIZERS.load(resolved.recipe.optimizer)
    job = RunJob(task=task, resolved=resolved, seed=request.seed, data=data, device=device)
    watch = _Watch(start, budget, request.tell)
    result = run_job(job, report=watch, options=watch.options(request))
    if result.cause == "diverged":
        raise ModelDivergedError(f"{result.message.rstrip('.')}. Lower lr, or set grad_clip.")
    result.model.eval()
    return Trained(
        network=result.model,
        standardizer=standardizer,
        target_mean=data.target_mean,
        target_std=data.target_std,
        target_shape=labels.shape[1:],
        is_own=isinstance(network, Given),
        policy=carried_out,
        recipe=resolved.recipe,
        facts=facts,
        ledger=result.ledger,
        plain_flops=conventional(facts).cost(facts),
        is_complete=result.cause == "finished",
        limits=(*limits, *changed),
        updates=result.updates,
        seconds=time.perf_counter() - start,
    )


def refuse_weights(sample_weight: Any) -> None:
    """Refuse weights of rows, which a host may hand on.

    Raises:
        ConfigError: there are some.
    """
    if sample_weight is not None:
        advice = 'Leave it out; recipe={"class_weights": "balanced"} weighs classes.'
        raise ConfigError(config.must("sample_weight", "left out", type(sample_weight).__name__, advice))


class _Watch:
    """Looks at the clock while a run goes on, and tells how far it is."""

    def __init__(self, start: float, budget: float | None, tell: Callable[[str], None] | None) -> None:
        self._start, self._budget, self._tell, self._told = start, budget, tell, 0

    def options(self, request: Request) -> RunOptions:
        """Of a run that is watched."""
        points = LINES if self._budget is None else LOOKS
        return RunOptions(
            device=request.device,
            num_threads=request.num_threads,
            evaluations=1 if self._budget is None and self._tell is None else points,
            measure_metrics=False,
            keep_model=True,
            keep_rankings=False,
        )

    def __call__(self, point: CurvePoint) -> bool:
        """Whether the time is up."""
        seconds = time.perf_counter() - self._start
        if self._tell is not None and point.share * LINES >= self._told + 1:
            self._told = int(point.share * LINES)
            loss = "" if point.loss is None else f", training loss {point.loss:.4g}"
            self._tell(f"phase {point.phase + 1}, {100 * point.share:.0f}% of the compute, {seconds:.1f} s{loss}")
        return self._budget is not None and seconds >= self._budget


# --- what is followed -------------------------------------------------------------------------------------------------


def source_of(policy: Any) -> tuple[Bundle | None, Policy | None]:
    """The bundle that a user names, if it is one, and the policy; both None for None.

    Raises:
        BundleError: there is no bundle, or it is damaged.
        ConfigError: it is nothing of what can be followed.
    """
    if policy is None:
        return None, None
    if isinstance(policy, Bundle):
        return policy, policy.policy
    if isinstance(policy, Policy):
        return None, policy
    if isinstance(policy, Mapping):
        return None, Policy.from_mapping(policy, source="policy")
    if isinstance(policy, str | os.PathLike):
        path = os.fspath(policy)
        if path.endswith(".json"):
            return None, read_policy(path)
        bundle = Bundle.load(path)
        return bundle, bundle.policy
    advice = "Give the folder of a bundle, a Policy, or None for the recipe as it stands."
    raise ConfigError(config.must("policy", "a bundle or a policy", type(policy).__name__, advice))


def derived(bundle: Bundle | None, policy: Policy | None, facts: TaskFacts) -> tuple[Policy, tuple[str, ...]]:
    """The policy for rows of a host, and sentences on what differs from the evidence.

    Raises:
        ConfigError: the Q of a phase needs more examples than there are.
    """
    if policy is None:
        return conventional(facts), ()
    if bundle is None:
        return transfer(policy, facts), (NO_EVIDENCE,)
    changed = replace(bundle, policy=policy)
    moved, sentence = changed.derive(facts)
    return moved, (sentence, *limits(changed, moved, facts))


def _refuse_other_tasks(bundle: Bundle | None, kind: str) -> None:
    if bundle is None:
        return
    if bundle.task.train is not None:
        raise BundleError(
            f"the bundle was made for {bundle.task.train}, which trains a network of its own. Follow it there: "
            "see docs/own_training.md."
        )
    if bundle.task.kind != kind:
        raise BundleError(f"the bundle must be one of a {kind}, got one of a {bundle.task.kind}. Use it for those.")


# --- the recipe -------------------------------------------------------------------------------------------------------


def usual_recipe(policy: Any, given: Mapping[str, Any]) -> Recipe:
    """The recipe that a request trains by; arguments as of `Request`, errors as of `train`."""
    bundle, found = source_of(policy)
    recipe, kept, _ = _recipe(given, bundle, found)
    return recipe if kept is None else recipe.override(kept.recipe)


def _recipe(
    given: Mapping[str, Any], bundle: Bundle | None, policy: Policy | None
) -> tuple[Recipe, Policy | None, tuple[str, ...]]:
    """The recipe with the user's settings, a policy that leaves them alone, and sentences on what they change."""
    base = config.build(Recipe, RECIPE) if bundle is None else bundle.task.recipe
    changes = {key: value for key, value in given.items() if key != "epochs"}
    epochs = given.get("epochs", base.epochs)
    if bundle is not None and epochs != base.epochs:
        advice = "The length of a training is the policy's: leave epochs out, or the bundle."
        raise ConfigError(config.must("epochs", f"{base.epochs:g} with this bundle, or None", epochs, advice))
    plain = {name: value for name, value in _fields(base.override(changes)).items() if name != "epochs"}
    recipe = config.build(Recipe, {**plain, "epochs": epochs})
    if policy is None:
        return recipe, None, ()
    own = {*changes, *(OPTIMIZER_KEYS if "optimizer" in changes else ())}
    kept = replace(policy, recipe=FrozenDict({k: v for k, v in policy.recipe.items() if k not in own}))
    if bundle is None:
        return recipe, kept, ()
    return recipe, kept, changed_settings(_fields(bundle.recipe), _fields(recipe.override(kept.recipe)))


def _fields(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in Recipe.__dataclass_fields__}


# --- the network ------------------------------------------------------------------------------------------------------


def _network(request: Request, bundle: Bundle | None) -> Model | Given:
    """The network by name where it is one of ours, else as it was handed over."""
    module, options = request.module, dict(request.module_options or {})
    if module is None and bundle is not None:
        module, options = bundle.task.model.name, {**bundle.task.model.options, **options}
    if module is None or (isinstance(module, str) and MODELS.code_of(module) is None):
        return Model(name=module or "mlp", options=FrozenDict(options))
    if isinstance(module, nn.Module):
        if options:
            advice = "Leave them out, or give a function that builds it."
            raise ConfigError(config.must("module_options", "left out beside a module that is built", options, advice))
        return Given(lambda _, __: models.copy_of(module))
    function = MODELS.load(module) if isinstance(module, str) else module
    if not callable(function):
        advice = "Give a function or class of (num_features, num_outputs), or a torch module."
        raise ConfigError(config.must("module", "a network or what builds one", type(module).__name__, advice))
    return Given(lambda shape, outputs: _built(function, options, shape, outputs))


def _built(function: Callable[..., Any], options: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Any:
    """What a function builds that takes the numbers by their names, else in their order."""
    offered = {"num_features": prod(shape), "input_shape": shape, "num_outputs": outputs}
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
    if (takes_any or any(one.name in offered for one in parameters)) and not _is_in_order(function, options, offered):
        return plugins.call(function, "module", options, offered)
    return function(prod(shape), outputs, **options)


def _is_in_order(function: Callable[..., Any], options: Mapping[str, Any], offered: Mapping[str, Any]) -> bool:
    """Whether the first two parameters are, by names of its own, the numbers of features and outputs; no more lacks."""
    named = [one for one in inspect.signature(function).parameters.values() if one.kind not in MANY]
    lacks = {one.name for one in named if one.default is one.empty and one.name not in {*offered, *options}}
    first = [one.name for one in named[:2]]
    known = zip(first, ("num_features", "num_outputs"), (OF_FEATURES, OF_OUTPUTS), strict=False)
    fits = all(name == ours or (name in lacks and words & set(name.split("_"))) for name, ours, words in known)
    return bool(lacks) and lacks <= set(first) and len(first) == 2 and fits


def _facts(task: Task, data: TaskData) -> TaskFacts:
    """As `count_facts`: of our own networks, whose FLOPs depend on shapes alone, they are remembered."""
    if MODELS.code_of(task.model.name) is not None or task.loss is not None:
        return count_facts(task, data)
    batch_size = min(task.recipe.batch_size, len(data.train))
    key = config.digest([task.model, task.kind, list(data.input_shape), data.num_outputs, batch_size])
    if key in _COUNTED:
        _COUNTED.move_to_end(key)
        return recounted(_COUNTED[key], task, data)
    facts = count_facts(task, data)
    if not facts.notes:
        _COUNTED[key] = facts
        if len(_COUNTED) > KEPT:
            _COUNTED.popitem(last=False)
    return facts
