"""Networks whose cost depends on more than the shape of their inputs, as user code has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

WIDTH, OUTPUTS = 8, 3


class Packed(nn.Module):
    """Token ids (b, t) with padding 0 through a recurrent layer that leaves the padding out."""

    def __init__(self, num_tokens: int = 50, num_outputs: int = OUTPUTS) -> None:
        super().__init__()
        self.table = nn.Embedding(num_tokens, WIDTH, padding_idx=0)
        self.body, self.head = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.Linear(WIDTH, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x != 0).sum(1)
        packed = pack_padded_sequence(self.table(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.body(packed)
        return self.head(last[0])  # type: ignore[no-any-return]

    @staticmethod
    def flops(length: int) -> int:
        """Of the forward pass of an example: three gates of a recurrent step, each from input and state."""
        return length * 2 * 3 * WIDTH * 2 * WIDTH + 2 * WIDTH * OUTPUTS


def packed(input_shape: tuple[int, ...], num_outputs: int, num_tokens: int) -> nn.Module:
    """`Packed` for a task."""
    return Packed(num_tokens, num_outputs)


class Masked(nn.Module):
    """Token ids (b, t) with padding 0 through the transformer encoder of torch, which a mask tells of the padding."""

    def __init__(self, num_tokens: int = 50, num_outputs: int = OUTPUTS) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, batch_first=True)
        self.table, self.body = nn.Embedding(num_tokens, WIDTH, padding_idx=0), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        is_padding = (x == 0).unsqueeze(2)
        states = self.body(self.table(x), src_key_padding_mask=is_padding.squeeze(2)).masked_fill(is_padding, 0.0)
        return self.head(states.sum(1) / (~is_padding).sum(1))  # type: ignore[no-any-return]


def masked(input_shape: tuple[int, ...], num_outputs: int, num_tokens: int) -> nn.Module:
    """`Masked` for a task."""
    return Masked(num_tokens, num_outputs)


class Cropped(nn.Module):
    """Token ids through a layer up to the longest text of the batch."""

    def __init__(self, num_tokens: int = 50) -> None:
        super().__init__()
        self.table = nn.Embedding(num_tokens, WIDTH, padding_idx=0)
        self.body, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        longest = int((x != 0).sum(1).max())
        return self.head(self.body(self.table(x[:, :longest])).mean(1))  # type: ignore[no-any-return]


class Experts(nn.Module):
    """Numbers (b, d): each example through the expert that it is routed to, of which one is never asked."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.never = nn.Linear(WIDTH, OUTPUTS), nn.Linear(WIDTH, OUTPUTS)
        self.large = nn.Sequential(nn.Linear(WIDTH, 64), nn.Linear(64, OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(len(x), OUTPUTS)
        is_large = x[:, 0] > 0
        if is_large.any():
            out = out.masked_scatter(is_large.unsqueeze(1), self.large(x[is_large]))
        if not is_large.all():
            out = out.masked_scatter(~is_large.unsqueeze(1), self.small(x[~is_large]))
        return out if float(x.abs().max()) < 1e6 else self.never(x)


class LayerDrop(nn.Module):
    """Layers that training leaves out at random, each half of the time. Source: Fan et al. 2019, arXiv:1909.11556."""

    def __init__(self, num_layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(num_layers))
        self.head = nn.Linear(WIDTH, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or torch.rand(()) < 0.5:
                x = x + layer(x)
        return self.head(x)  # type: ignore[no-any-return]


class TwoHeads(nn.Module):
    """A head for training and a larger one for evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.train_head = nn.Linear(WIDTH, OUTPUTS)
        self.large_head = nn.Sequential(nn.Linear(WIDTH, 64), nn.Linear(64, OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        return (self.train_head if self.training else self.large_head)(x)  # type: ignore[no-any-return]
