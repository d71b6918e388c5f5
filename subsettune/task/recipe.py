"""The conventional training of a task, any key of which a policy may override but `epochs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, FrozenDict, Rule, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.goal import WEIGHTS_RULE
from subsettune.registry import OPTIMIZERS, SCHEDULES

MOMENTUM_OPTIMIZERS = ("sgd",)
OPTIMIZER_KEYS = ("momentum", "nesterov", "optimizer_options")  # mean something to one optimizer, nothing to another


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Random changes of training inputs, made on the device; 0 and false are off. They happen in this order.

    Args:
        flip: mirror left-right with probability 1/2.
        crop_padding: pad by so many pixels on each side with zeros, then crop to the old size at a random place.
        torchvision: transforms of torchvision by name, each a mapping of `name` and its options, image by image; those
            that move pixels or leave some out, since images are standardised before.
        function: `package.module:function` of the user's own, of (b, ...) inputs as networks get them and `rng`, a
            generator on their device; gives inputs of that shape.
        options: further keyword arguments of the function.
    """

    flip: bool = False
    crop_padding: int = setting(0, rule=NOT_NEGATIVE)
    torchvision: tuple[FrozenDict, ...] = ()
    function: str | None = setting(None, rule=Rule("package.module:function", lambda name: ":" in name))
    options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)
        nameless = next((one for one in self.torchvision if not isinstance(one.get("name"), str)), None)
        if nameless is not None:
            message = config.must("torchvision", "transforms, each with a name", nameless, "Write {name: ..., ...}.")
            raise ConfigError((Mistake(("torchvision",), message),))
        if self.options and self.function is None:
            raise ConfigError((Mistake(("options",), "options are those of function, and there is none. Name it."),))

    @property
    def is_off(self) -> bool:
        """Whether inputs stay as they are."""
        return not (self.flip or self.crop_padding or self.torchvision or self.function)

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        new = ("torchvision", "function", "options")
        names = [name for name in Augment.__dataclass_fields__ if name not in new or getattr(self, name)]
        return {name: config.to_plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The conventional training. A policy may override any key but `epochs`, which its budget replaces.

    Args:
        optimizer: sgd, adam, adamw, adadelta, lbfgs (full batches only), or `package.module:name` of a class or
            function, called as `subsettune.train.optimizers.make` says.
        lr: peak learning rate.
        batch_size: examples per update.
        epochs: passes over the training examples.
        schedule: shape of the learning rate over the share of compute used.
        schedule_options: of the schedule, as `{warmup: 0.05}`.
        momentum: of sgd; null is 0.
        nesterov: of sgd.
        weight_decay: as the optimizer defines it.
        optimizer_options: further keyword arguments of the optimizer, e.g. `{betas: [0.9, 0.95]}`.
        grad_clip: largest norm of the gradient, null for none.
        label_smoothing: of the cross-entropy loss.
        augment: random changes of training images.
        precision: `float32`, `bfloat16` (by autocast), or `auto`: bfloat16 where the device is a GPU.
        class_weights: factors of the losses by class: `balanced`, as rare as a class is in the training part, or a list
            of a number each in the order of the classes; their mean over the training part is made 1.
        own: hyperparameters of a training function of the user's own (`task.train`), with their usual values; a space
            searches them as `own.NAME`, and the function finds them as `run.recipe.own["NAME"]`.
        ema: decay of a moving average of the weights, which then is what is measured and kept; null for none.
    """

    optimizer: str = setting("sgd", rule=OPTIMIZERS.rule)
    lr: float = setting(rule=POSITIVE)
    batch_size: int = setting(rule=AT_LEAST_ONE)
    epochs: float = setting(rule=POSITIVE)
    schedule: str = setting("cosine", rule=SCHEDULES.rule)
    schedule_options: FrozenDict = setting(FrozenDict())
    momentum: float | None = setting(None, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    nesterov: bool = False
    weight_decay: float = setting(0.0, rule=NOT_NEGATIVE)
    optimizer_options: FrozenDict = setting(FrozenDict())
    grad_clip: float | None = setting(None, rule=POSITIVE)
    label_smoothing: float = setting(0.0, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    augment: Augment = setting(Augment())
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    class_weights: tuple[float, ...] | str | None = setting(None, rule=WEIGHTS_RULE)
    own: FrozenDict = setting(FrozenDict())
    ema: float | None = setting(None, rule=Rule("in (0, 1)", lambda v: 0 < v < 1, "Usual are 0.99 to 0.9999."))

    def __post_init__(self) -> None:
        config.check(self)
        if self.optimizer not in MOMENTUM_OPTIMIZERS and ":" not in self.optimizer:
            given = [key for key in ("momentum", "nesterov") if getattr(self, key)]
            if given:
                message = f"means nothing to {self.optimizer}. Leave it out, or use optimizer_options."
                raise ConfigError(tuple(Mistake((key,), f"{key} {message}") for key in given))
        if self.optimizer == "lbfgs":
            self._check_lbfgs()
        if self.nesterov and not self.momentum and self.optimizer in MOMENTUM_OPTIMIZERS:
            raise ConfigError((Mistake(("nesterov",), "nesterov needs momentum. Set momentum, e.g. 0.9."),))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        new = {"class_weights": None, "ema": None, "own": FrozenDict()}
        names = [name for name in Recipe.__dataclass_fields__ if name not in new or getattr(self, name) != new[name]]
        return {name: config.to_plain(getattr(self, name)) for name in names}

    def _check_lbfgs(self) -> None:
        """Refuse what would change the loss or the gradient behind the back of its line search."""
        given = {"grad_clip": self.grad_clip is not None, "weight_decay": self.weight_decay > 0}
        advice = {"grad_clip": "null", "weight_decay": "0"}
        message = "{} does not fit lbfgs, which searches along the gradient of the loss itself. Write {}."
        mistakes = [Mistake((key,), message.format(key, advice[key])) for key in given if given[key]]
        if mistakes:
            raise ConfigError(tuple(mistakes))

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some keys replaced; mappings replace whole, but for `own`, whose keys are replaced each.

        A new optimizer drops the settings that only the old one understood (momentum, nesterov, optimizer_options).

        Raises:
            ConfigError: an unknown key, `epochs`, or a value out of range.
        """
        if "epochs" in changes:
            raise ConfigError(
                (Mistake(("epochs",), "epochs cannot be overridden: the budget of a policy replaces it."),)
            )
        plain: dict[str, Any] = {name: getattr(self, name) for name in Recipe.__dataclass_fields__}
        if changes.get("optimizer", self.optimizer) != self.optimizer:
            for key in OPTIMIZER_KEYS:
                del plain[key]
        changes = {**changes, "own": {**self.own, **changes["own"]}} if "own" in changes else changes
        return config.build(Recipe, {**plain, **changes})


# The budget decides on epochs; the others are mappings and lists.
UNSEARCHABLE = ("epochs", "augment", "optimizer_options", "schedule_options", "class_weights", "own")
RECIPE_KEYS = tuple(name for name in Recipe.__dataclass_fields__ if name not in UNSEARCHABLE)
