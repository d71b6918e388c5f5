"""RandAugment of stored images: a change drawn from a list, as strong as asked, for a few images at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from subsettune.extras import needed_for

GROUP = 8  # images that share a change: torchvision draws one for what it is given, and calling it for each is slow
MAGNITUDES = 31  # torchvision's strengths are 0 to 30


def rand_augment(images: Tensor, magnitude: int, rng: torch.Generator) -> Tensor:
    """One change of shape or colour, the same for each `GROUP` images in a row; identity is one of the list.

    Args:
        images: (b, c, h, w) uint8 with 1 or 3 channels; left as they are.
        magnitude: strength, below `MAGNITUDES`.
        rng: on the CPU; torchvision draws from the global state, which is forked for it.

    Source: Cubuk et al. 2020, arXiv:1909.13719, with N = 1, as `torchvision.transforms.v2.RandAugment` has it.
    """
    with needed_for("rand_augment of a soup"):
        from torchvision.transforms import v2

    change = v2.RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=MAGNITUDES)
    seed = int(torch.randint(2**62, (), generator=rng))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return torch.cat([change(group) for group in images.split(GROUP)])
