"""A small transformer encoder that classifies sequences of token ids.

| symbol | meaning |
|---|---|
| b, t | examples of a batch, places of a sequence |
| w, h | numbers of a token inside the network (`width`), heads |
| real | (b, t) bool, whether a place holds a token and no padding |

Written out from matrix products: their FLOPs can be counted, `torch.func.vmap` can follow them, and the same seed gives
the same bits. No operation looks at values to decide what to do next.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from subsettune.config import must
from subsettune.errors import ConfigError, ModelError

PADDING = 0  # the token id of places after a text's end
INITIAL_STD = 0.02  # of embeddings and weight matrices, as Devlin et al. 2019 (arXiv:1810.04805) draw them


class Attention(nn.Module):
    """Multi-head self-attention in which no place looks at padding. Source: Vaswani et al. 2017, arXiv:1706.03762, 3.2.

    Args:
        width: w, a multiple of `heads`.
        heads: h.
        dropout: of the attention weights, in [0, 1).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.projections = nn.Linear(width, 3 * width)  # queries, keys and values in one product
        self.dropout = nn.Dropout(dropout)
        self.merge = nn.Linear(width, width)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(b, t, w) of (b, t, w). Where all is padding every place looks at every place: a softmax needs something."""
        b, t, w = hidden.shape
        parts = self.projections(hidden).view(b, t, 3, self.heads, w // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind(0)  # each (b, h, t, w / h)
        scores = queries @ keys.transpose(2, 3) / math.sqrt(w // self.heads)
        seen = real | ~real.any(dim=1, keepdim=True)
        weights = scores.masked_fill(~seen[:, None, None], -math.inf).softmax(dim=3)
        mixed = (self.dropout(weights) @ values).transpose(1, 2).reshape(b, t, w)
        merged: Tensor = self.merge(mixed)
        return merged


class Block(nn.Module):
    """Self-attention, then two linear layers with GELU between, each on normalised inputs and added to what came in.

    Normalising before, not after, needs no warm-up of the learning rate. Source: Xiong et al. 2020, arXiv:2002.04745.

    Args:
        width: w.
        heads: of the attention.
        feedforward: units between the two linear layers.
        dropout: of attention weights and of what is added, in [0, 1).
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(b, t, w) of (b, t, w)."""
        hidden = hidden + self.dropout(self.attention(self.attention_norm(hidden), real))
        changed: Tensor = hidden + self.dropout(self.feedforward(self.feedforward_norm(hidden)))
        return changed


class MaskedMean(nn.Module):
    """The mean over the places that hold tokens; zeros where all is padding."""

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(b, w) of (b, t, w)."""
        counted = real.unsqueeze(2).to(hidden.dtype)
        return (hidden * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


class Head(nn.Module):
    """What turns the output of a block into outputs of the network.

    Args:
        width: w.
        num_outputs: M.
    """

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.pooling = MaskedMean()
        self.output = nn.Linear(width, num_outputs)

    def forward(self, hidden: Tensor, real: Tensor) -> Tensor:
        """(b, M) of (b, t, w)."""
        outputs: Tensor = self.output(self.pooling(self.norm(hidden), real))
        return outputs


class Transformer(nn.Module):
    """Embeddings of tokens and places, blocks of self-attention, and a linear layer on the mean of what comes out.

    Padding changes nothing: an example has the same outputs however many places follow its text.

    Args:
        max_tokens: t, places of a sequence.
        num_tokens: ids, 0 for padding included.
        num_outputs: of the last layer.
        width: numbers of a token inside the network, a multiple of `heads`.
        depth: blocks.
        heads: of the attention.
        feedforward: hidden units of the two linear layers in each block.
        dropout: of embeddings, attention weights, and what each half of a block adds, in [0, 1).
    """

    # More than six parameters: those of `transformer`, resolved.
    def __init__(
        self,
        max_tokens: int,
        num_tokens: int,
        num_outputs: int,
        *,
        width: int,
        depth: int,
        heads: int,
        feedforward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Parameter(torch.empty(max_tokens, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, feedforward, dropout) for _ in range(depth))
        self.head = Head(width, num_outputs)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=INITIAL_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, M) outputs of (b, t) int64 token ids."""
        real = inputs != PADDING
        hidden = self.dropout(self.tokens(inputs) + self.positions)
        for block in self.blocks:
            hidden = block(hidden, real)
        return self.read_out(hidden, inputs)

    def read_out(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Outputs from the output of a block: the last one's are the network's own, an earlier one's an early exit's.

        Args:
            hidden: (b, t, w) output of a block.
            inputs: (b, t) int64 token ids.

        Returns:
            (b, M).
        """
        outputs: Tensor = self.head(hidden, inputs != PADDING)
        return outputs


# More than six parameters: the last five are the options of a study file.
def transformer(
    input_shape: tuple[int, ...],
    num_outputs: int,
    num_tokens: int = 0,
    *,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    feedforward: int = 128,
    dropout: float = 0.1,
) -> nn.Module:
    """Transformer encoder for texts: self-attention, and the mean of its outputs through a linear layer.

    Args:
        input_shape: (t,), token ids of one example.
        num_outputs: output units.
        num_tokens: ids, padding and unknown included.
        width: numbers of a token inside the network, a multiple of `heads`.
        depth: blocks.
        heads: of the attention.
        feedforward: hidden units of the two linear layers in each block.
        dropout: of embeddings, attention weights, and what each half of a block adds, in [0, 1).

    Raises:
        ModelError: the inputs are no token ids.
        ConfigError: a width that does not fit.
    """
    if num_tokens < 1 or len(input_shape) != 1:
        raise ModelError(
            f"model 'transformer' needs texts (a row of token ids for each example), got numbers of shape "
            f"{tuple(input_shape)}. Set data.text, or data.layout to tokens, or use another model."
        )
    sizes = {"width": width, "depth": depth, "heads": heads, "feedforward": feedforward}
    for name, value in sizes.items():
        if type(value) is not int or value < 1:
            raise ConfigError(must(name, "a positive whole number", value, "Write e.g. 4."))
    if width % heads:
        raise ConfigError(must("width", f"a multiple of heads, which are {heads}", width, "Change one of them."))
    return Transformer(input_shape[0], num_tokens, num_outputs, dropout=dropout, **sizes)
