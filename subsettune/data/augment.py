"""Random changes of training images, a batch at a time on the device, drawn from a generator that is handed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from subsettune.errors import ConfigError
from subsettune.task import Augment

Change = Callable[[Tensor], Tensor]


def make_augment(augment: Augment, input_shape: tuple[int, ...], rng: torch.Generator) -> Change | None:
    """What changes each batch of training images; None if nothing does.

    Args:
        augment: which changes.
        input_shape: of one example.
        rng: on the device of the batches; all randomness.

    Raises:
        ConfigError: the inputs are no images, or the padding is wider than they are.
    """
    if augment.is_off:
        return None
    if len(input_shape) != 3:
        raise ConfigError(
            f"augment needs images (channels, height, width), got inputs of shape {input_shape}. Switch it off."
        )
    if augment.crop_padding >= min(input_shape[1:]):
        raise ConfigError(
            f"crop_padding must be below the image's side, got {augment.crop_padding} for {input_shape[1:]}."
        )

    def change(images: Tensor) -> Tensor:
        if augment.flip:
            images = flip(images, rng)
        return crop(images, augment.crop_padding, rng) if augment.crop_padding else images

    return change


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror each image left-right with probability 1/2.

    Args:
        images: (b, c, h, w).
        rng: on their device.
    """
    mirrored = torch.rand(len(images), device=images.device, generator=rng) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def crop(images: Tensor, padding: int, rng: torch.Generator) -> Tensor:
    """Pad with zeros, the mean colour of normalised images, and cut the old size out at a random place.

    Args:
        images: (b, c, h, w).
        padding: pixels on each side; shifts are uniform in [-padding, padding] on both axes.
        rng: on their device.
    """
    b, _, h, w = images.shape
    windows = functional.pad(images, (padding,) * 4).unfold(2, h, 1).unfold(3, w, 1)  # a view: every place of the cut
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, b), device=images.device, generator=rng)
    return windows[torch.arange(b, device=images.device), :, tops, lefts]
