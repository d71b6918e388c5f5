"""Small reference networks by name, and the user's own by `package.module:function`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from subsettune.config import must
from subsettune.errors import ConfigError, ModelError, SubsettuneError
from subsettune.extras import needed_for
from subsettune.models.copies import remember, tensors
from subsettune.models.pooling import MaxPool2x2
from subsettune.plugins import call
from subsettune.registry import MODELS
from subsettune.task import Model

Shape = tuple[int, ...]


def mlp(input_shape: Shape, num_outputs: int, *, hidden: Sequence[int] = (64,), dropout: float = 0.0) -> nn.Module:
    """Fully connected network with ReLU.

    Args:
        input_shape: of one example; flattened.
        num_outputs: output units.
        hidden: widths of the hidden layers, in order; empty for a linear model.
        dropout: probability of dropping a hidden unit in training, in [0, 1).
    """
    _check_widths("hidden", hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(input_shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        width = units
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))


def cnn(
    input_shape: Shape, num_outputs: int, *, channels: Sequence[int] = (16, 32), hidden: int = 64, dropout: float = 0.0
) -> nn.Module:
    """Per entry of `channels` a 3x3 convolution, ReLU and 2x2 max pooling; then one hidden layer.

    Args:
        input_shape: (c, h, w); h and w at least 2 ** len(channels).
        num_outputs: output units.
        channels: output channels of each convolution.
        hidden: width of the hidden layer.
        dropout: before the last layer, in [0, 1).
    """
    _check_widths("channels", channels)
    if type(hidden) is not int or hidden < 1:
        raise ConfigError(must("hidden", "a positive whole number", hidden, "Write e.g. 64."))
    c, h, w = _image_shape(input_shape, "cnn")
    if min(h, w) < 2 ** len(channels):
        raise ModelError(
            f"cnn halves the image {len(channels)} times, which {h}x{w} pixels do not allow. Use fewer channels."
        )
    layers: list[nn.Module] = []
    for width in channels:
        layers += [nn.Conv2d(c, width, 3, padding=1), nn.ReLU(), MaxPool2x2()]
        c, h, w = width, h // 2, w // 2
    layers += [nn.Flatten(), nn.Linear(c * h * w, hidden), nn.ReLU()]
    layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(hidden, num_outputs))


def resnet18(input_shape: Shape, num_outputs: int) -> nn.Module:
    """Torchvision's ResNet-18 with the stem for 32x32 images: a 3x3 convolution of stride 1 and no pooling.

    Source: He et al. 2016, arXiv:1512.03385; the stem as in section 4.2 there.
    """
    with needed_for("model 'resnet18'"):
        from torchvision.models import resnet18 as torchvision_resnet18

    c, _, _ = _image_shape(input_shape, "resnet18")
    network: nn.Module = torchvision_resnet18(weights=None, num_classes=num_outputs)
    network.conv1 = nn.Conv2d(c, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


FOR_TOKENS = ("transformer",)
OUTPUT_NAMES = ("logits", "output", "outputs", "prediction", "predictions")  # of a dict, which hold what is judged


def make(model: Model, input_shape: Shape, num_outputs: int, num_tokens: int = 0) -> nn.Module:
    """Build the network of a task, freshly initialised from torch's global random state.

    A user's function gets its options, and `input_shape`, `num_outputs` and, for texts, `num_tokens` if it takes them.

    Args:
        model: name and options.
        input_shape: of one example.
        num_outputs: classes, or target columns of a regression.
        num_tokens: size of the vocabulary where the inputs are token ids; 0 where they are numbers.

    Raises:
        ConfigError: unknown options, or a function that cannot be imported.
        ModelError: what came back is no network, has nothing to train, or the inputs are not what it takes.
    """
    if num_tokens and model.name in MODELS and model.name not in FOR_TOKENS:
        raise ModelError(
            f"model {model.name!r} needs numbers, got texts or other token ids. Use {' or '.join(FOR_TOKENS)}, or a "
            "network of your own."
        )
    builder = MODELS.load(model.name)
    offered: dict[str, Any] = {"input_shape": tuple(input_shape), "num_outputs": num_outputs}
    offered |= {"num_tokens": num_tokens} if num_tokens else {}

    def build() -> Any:
        made = call(builder, f"model {model.name!r}", model.options, offered)
        is_own = MODELS.code_of(model.name) is not None and isinstance(made, nn.Module)
        if is_own and not isinstance(made, torch.jit.ScriptModule):
            made.register_forward_hook(_taken_out)
        return made

    try:
        network = build()
    except ConfigError as error:
        if num_tokens or "num_tokens" not in str(error):
            raise
        raise ModelError(
            f"model {model.name!r} needs token ids (num_tokens), got numbers of shape {tuple(input_shape)}. Set "
            "data.layout to tokens, or data.text."
        ) from error
    except SubsettuneError:
        raise
    except Exception as error:  # whatever a builder raises: its options or the data do not suit it
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ConfigError(f"model {model.name!r} cannot be built with {dict(model.options)}: {reason}.") from error
    return remember(_checked_network(network, model.name), build)


def _checked_network(network: object, name: str) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise ModelError(f"model {name!r} must return a torch.nn.Module, got {type(network).__name__}.")
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(f"model {name!r} is scripted, which hides its FLOPs. Return it without torch.jit.")
    parameters = list(network.parameters())
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in parameters):
        raise ModelError(f"model {name!r} has lazy layers, whose size is not known. Give all layers their input size.")
    if not any(p.requires_grad for p in parameters):
        raise ModelError(f"model {name!r} has no trainable parameters. Give it some.")
    for path, values in tensors(network).items():
        _check_values(values, path, name)
    return network


def _check_values(values: Tensor, path: str, name: str) -> None:
    """Refuse weights and buffers without numbers."""
    if values.is_meta:
        raise ModelError(f"{path} of model {name!r} is on the meta device, without values. Build it on the CPU.")
    if values.is_floating_point() and bool(values.isnan().any()):
        raise ModelError(f"{path} of model {name!r} holds NaN before it is trained. Initialise all of it.")


def _taken_out(_: nn.Module, __: tuple[object, ...], output: object) -> Tensor | None:
    """The logits or values of a network of the user's own that returns more than them; None leaves the output."""
    if isinstance(output, Tensor):
        return None
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if not isinstance(output, Mapping):
        return None
    tensors = {name: value for name, value in output.items() if isinstance(value, Tensor)}
    named = [value for name, value in tensors.items() if name in OUTPUT_NAMES]
    found = named if named else list(tensors.values())
    return found[0] if len(found) == 1 else None


def check_output(output: object, batch: int, num_outputs: int, name: str, *, mode: str = "") -> None:
    """Check that a network's output fits the targets.

    Args:
        output: what it gave.
        batch: examples that it was given.
        num_outputs: classes or target columns.
        name: of the model, for the message.
        mode: in which it was, for the message, if not in training.

    Raises:
        ModelError: it is not (batch, num_outputs), nor (batch,) where one output is wanted.
    """
    where = f" in {mode}" if mode else ""
    if not isinstance(output, Tensor):
        kind, advice = type(output).__name__, _way_to_tensor(output)
        raise ModelError(f"model {name!r} must return a tensor{where}, got {kind}. {advice}")
    fits = tuple(output.shape) == (batch, num_outputs) or (num_outputs == 1 and tuple(output.shape) == (batch,))
    if not fits:
        want = f"({batch}, {num_outputs}) for {batch} examples and {num_outputs} classes or targets"
        got = f"{tuple(output.shape)}{where}"
        raise ModelError(f"output of model {name!r} must be {want}, got {got}. Fit its last layer.")


def _way_to_tensor(output: object) -> str:
    """What to do about an output that is no tensor."""
    if isinstance(output, Mapping):
        entries = ", ".join(map(str, output))
        return f"Name one of {entries} logits, or wrap it in a module whose forward returns that entry."
    if isinstance(output, list | tuple):
        what = "the entry with the logits or values, e.g. outputs[0]"
    else:
        return "Return the logits or values, (batch, outputs)."
    return f"Wrap it in a module whose forward returns {what}."


def num_parameters(network: nn.Module) -> int:
    """P: trainable parameters, tied ones once, frozen ones and buffers not."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _image_shape(input_shape: Shape, name: str) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ModelError(
            f"model {name!r} needs images (channels, height, width), got inputs of shape {input_shape}. Use mlp, or a "
            "network of your own."
        )
    c, h, w = input_shape
    return c, h, w


def _check_widths(name: str, widths: Sequence[int]) -> None:
    if not isinstance(widths, list | tuple) or not all(type(w) is int and w > 0 for w in widths):
        raise ConfigError(must(name, "a list of positive whole numbers", widths, "Write e.g. [64]."))


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Keep the transformer encoder of torch from its fast path, which hides its layers.

    In evaluation it leaves padding out by nested tensors, which have no shape that a hook could look at, and computes a
    layer in one operation, which no FLOPs are seen of.
    """
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)


def input_dtype(num_tokens: int) -> torch.dtype:
    """What a network gets: int64 token ids where there is a vocabulary, else float32 numbers."""
    return torch.int64 if num_tokens else torch.float32


def fresh_input(
    input_shape: Shape, batch: int, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Tensor:
    """A batch of zeros in the shape and type of the task's inputs, for shape checks and counting."""
    return torch.zeros((batch, *input_shape), device=device, dtype=dtype)
