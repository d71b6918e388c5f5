"""The user's own metric and loss, `package.module:function`: called, and held to what they have to give."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from subsettune.config import must
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.registry import LOSSES, OWN_METRICS


def metric(name: str, outputs: Tensor, targets: Tensor) -> float:
    """A metric of the user's own over a split.

    Args:
        name: `package.module:function`, called with targets and outputs as NumPy arrays of their own.
        outputs: (n, M) finite logits or values, (n,) of a regression with one output.
        targets: (n,) int64 classes, (n, M) labels, or values.

    Raises:
        ConfigError: it fails, or gives something else than one finite number.
    """
    function = OWN_METRICS.load(name)
    given = (targets.cpu().numpy().copy(), outputs.cpu().numpy().copy())
    value = _called(function, f"metric {name!r}", given)
    is_number = isinstance(value, bool | int | float | np.generic) or (hasattr(value, "shape") and value.shape == ())
    if not is_number:
        raise ConfigError(must(f"metric {name!r}", "one finite number", _told(value), "Take a mean, or choose one."))
    number = float(value)
    if not math.isfinite(number):
        advice = "Say what it is worth where it means nothing, or leave such examples out."
        raise ConfigError(must(f"metric {name!r}", "one finite number", number, advice))
    return number


def losses(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Losses of the user's own of a batch.

    Args:
        name: `package.module:function`, called with outputs and targets.
        outputs: (b, M) float32 logits or values.
        targets: (b,) int64 classes, (b, M) float labels, or values, standardised; (b, M) where the outputs are.

    Returns:
        (b,), or a mean ().

    Raises:
        ConfigError: it fails, or gives something else.
    """
    value = _called(LOSSES.load(name), f"loss {name!r}", (outputs, targets))
    fits = isinstance(value, Tensor) and value.is_floating_point() and tuple(value.shape) in ((), (len(outputs),))
    if not fits:
        rule = f"a tensor of {len(outputs)} losses, one an example, or of their mean"
        raise ConfigError(must(f"loss {name!r}", rule, _told(value), "Take the mean over all but the first dimension."))
    found: Tensor = value
    return found


def refused(name: str, rule: str, got: str) -> ConfigError:
    """What to raise where a metric means nothing on a split."""
    advice = "Choose another metric, or another split."
    return ConfigError(f"{name} must be measured on {rule}, got {got}. {advice}")


def _called(function: Callable[..., Any], what: str, given: tuple[Any, ...]) -> Any:
    """What a function of the user's gives; whatever it raises becomes a sentence."""
    if not callable(function):
        raise ConfigError(must(what, "a function", type(function).__name__, "Check the name after the colon."))
    try:
        return function(*given)
    except SubsettuneError:
        raise
    except Exception as error:  # whatever the user's function raises
        reason = " ".join(str(error).split()).rstrip(".") or "no message"
        shapes = " and ".join(str(tuple(one.shape)) for one in given)
        raise ConfigError(f"{what} fails on arrays of shape {shapes}: {type(error).__name__}: {reason}.") from error


def _told(value: object) -> str:
    """What a value is, in a few words."""
    shape = getattr(value, "shape", None)
    if shape is None:
        return type(value).__name__
    return f"{type(value).__name__} of shape {tuple(shape)}"
