"""Plain numbers about a task: what an update costs, which layers the network has, `TaskFacts`. No torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config
from subsettune.config import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, FrozenDict, setting
from subsettune.errors import ConfigError

NO_Q = (
    "q is K*M/P, and M or P of this task is not known. Give task.outputs and task.parameters, or use subset_share "
    "(in a policy: share)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """FLOPs of a forward and of a backward pass."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Both."""
        return self.forward + self.backward


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLayer:
    """A layer with a weight matrix in a chain of such layers.

    Args:
        name: of the module.
        width: its output units or channels.
        forward_flops: of one example.
        backward_flops: likewise.
    """

    name: str
    width: int = setting(rule=AT_LEAST_ONE)
    forward_flops: int = setting(rule=NOT_NEGATIVE)
    backward_flops: int = setting(rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """What policies, spaces and the search need to know of a task.

    Args:
        num_examples: N, training examples.
        num_outputs: M, output units; 0 where nobody knows.
        num_parameters: P, trainable parameters, tied ones once; 0 where nobody knows.
        forward_flops: FLOPs of the forward pass of one example.
        backward_flops: FLOPs of the backward pass of one example.
        reference_passes: compute of the conventional recipe, in passes (its epochs).
        num_features: numbers in one input example.
        num_classes: classes, or 0 for regression.
        smallest_class: training examples of the rarest class, or 0 for regression.
        class_counts: training examples of each class; empty for regression.
        head_features: H, inputs of the last layer; 0 where the network does not end in a linear layer.
        layers: numbers that each named layer gives for an example, maps and sequences averaged over their places.
        num_embedding: numbers in the embedding that the data hold of each example; 0 without.
        exits: FLOPs of the forward pass of one example up to the output of each named layer, that layer included.
        blocks: names of the layers that follow each other at the top of the network: where a share of its depth ends.
        chain: layers with weights, in order, where the network is nothing but a chain of them (linear, convolution)
            with element-wise and pooling layers between; else empty. All but the last can be made narrower.
        inner: of a network that is no such chain, those inside it, e.g. between two residual sums, likewise; `exits`
            tells where each of their layers is.
        has_batch_norm: whether the network keeps running statistics.
        num_tokens: size of the vocabulary where an example is a sequence of token ids; 0 where it is numbers.
        image_channels: channels of an example that is stored as an image of bytes; 0 for other data.
        notes: sentences about what the FLOPs do not tell, e.g. that they depend on the values of the inputs.
        unit: what compute is counted in where the text says FLOPs: `example` where nobody knows what one costs; each
            then counts 1.
        num_labels: labels of an example that may have several; 0 for other tasks.
        own_loss: of a loss of the user's own, whether it gives one for each example (`each`) or their `mean`; else
            empty.
    """

    num_examples: int = setting(rule=AT_LEAST_ONE)
    num_outputs: int = setting(rule=NOT_NEGATIVE)
    num_parameters: int = setting(rule=NOT_NEGATIVE)
    forward_flops: int = setting(rule=AT_LEAST_ONE)
    backward_flops: int = setting(rule=NOT_NEGATIVE)
    reference_passes: float = setting(rule=POSITIVE)
    num_features: int = setting(1, rule=AT_LEAST_ONE)
    num_classes: int = setting(0, rule=NOT_NEGATIVE)
    smallest_class: int = setting(0, rule=NOT_NEGATIVE)
    class_counts: tuple[int, ...] = ()
    head_features: int = setting(0, rule=NOT_NEGATIVE)
    layers: FrozenDict = setting(FrozenDict())
    num_embedding: int = setting(0, rule=NOT_NEGATIVE)
    exits: FrozenDict = setting(FrozenDict())
    blocks: tuple[str, ...] = ()
    chain: tuple[ChainLayer, ...] = ()
    inner: tuple[tuple[ChainLayer, ...], ...] = ()
    has_batch_norm: bool = False
    num_tokens: int = setting(0, rule=NOT_NEGATIVE)
    image_channels: int = setting(0, rule=NOT_NEGATIVE)
    notes: tuple[str, ...] = ()
    unit: Literal["FLOP", "example"] = "FLOP"
    num_labels: int = setting(0, rule=NOT_NEGATIVE)
    own_loss: Literal["", "each", "mean"] = ""

    def __post_init__(self) -> None:
        config.check(self)

    def to_mapping(self) -> dict[str, Any]:
        """Plain; what is new stands there only where it says something, so that earlier versions read files without."""
        plain = {field.name: config.to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        idle = {"notes": [], "num_labels": 0, "own_loss": "", "unit": "FLOP"}
        return {name: value for name, value in plain.items() if name not in idle or value != idle[name]}

    @property
    def classless(self) -> str:
        """What a task without classes is, in a sentence."""
        return "has several labels an example" if self.num_labels else "is a regression"

    @property
    def chains(self) -> tuple[tuple[ChainLayer, ...], ...]:
        """The chain that the network is, or those inside it."""
        return (self.chain,) if self.chain else self.inner

    @property
    def prunable(self) -> tuple[str, ...]:
        """Names of the layers that can be made narrower: of each chain all but the last."""
        return tuple(layer.name for chain in self.chains for layer in chain[:-1])

    @property
    def has_q(self) -> bool:
        """Whether M and P are known."""
        return self.num_outputs > 0 and self.num_parameters > 0

    @property
    def example_flops(self) -> int:
        """FLOPs of one example's forward and backward pass: what an update pays per example."""
        return self.forward_flops + self.backward_flops

    @property
    def pass_flops(self) -> int:
        """FLOPs of one pass, the unit of compute: one conventional epoch."""
        return self.num_examples * self.example_flops

    @property
    def reference_flops(self) -> int:
        """FLOPs of the conventional recipe."""
        return round(self.reference_passes * self.pass_flops)

    def q(self, num_examples: int | None = None) -> float:
        """Overdetermination ratio Q = K*M/P of `num_examples` examples (default: all). Source: arXiv:2410.16523.

        Raises:
            ConfigError: M or P is not known.
        """
        if not self.has_q:
            raise ConfigError(NO_Q)
        k = self.num_examples if num_examples is None else num_examples
        return k * self.num_outputs / self.num_parameters

    def share_of_q(self, q: float) -> float:
        """The subset share whose overdetermination ratio is `q`; above 1 when all examples are too few."""
        return q / self.q()  # so that the Q of all examples gives 1 and not a rounding error more
