"""Random changes of training inputs, a batch at a time on the device, drawn from a generator that is handed in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from subsettune.config import must
from subsettune.errors import ConfigError, SubsettuneError
from subsettune.plugins import call
from subsettune.registry import AUGMENTS
from subsettune.task import Augment

Change = Callable[[Tensor], Tensor]
GEOMETRIC = (  # of torchvision.transforms.v2: they move pixels or leave some out, whatever the numbers mean
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "RandomRotation",
    "RandomAffine",
    "RandomPerspective",
    "RandomCrop",
    "RandomResizedCrop",
    "RandomErasing",
    "ElasticTransform",
    "GaussianBlur",
)


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
    own = _own(augment, rng)
    if not (augment.flip or augment.crop_padding or augment.torchvision):
        return own
    if len(input_shape) != 3:
        raise ConfigError(
            f"augment needs images (channels, height, width), got inputs of shape {input_shape}. Switch it off."
        )
    if augment.crop_padding >= min(input_shape[1:]):
        raise ConfigError(
            f"crop_padding must be below the image's side, got {augment.crop_padding} for {input_shape[1:]}."
        )

    transforms = [_of_torchvision(one) for one in augment.torchvision]

    def change(images: Tensor) -> Tensor:
        if augment.flip:
            images = flip(images, rng)
        images = crop(images, augment.crop_padding, rng) if augment.crop_padding else images
        images = transformed(images, transforms, rng) if transforms else images
        return images if own is None else own(images)

    return change


def _own(augment: Augment, rng: torch.Generator) -> Change | None:
    """The user's own function, held to what it has to give."""
    if augment.function is None:
        return None
    name, function = augment.function, AUGMENTS.load(augment.function)

    def change(inputs: Tensor) -> Tensor:
        shape = tuple(inputs.shape)
        try:
            changed = function(inputs, rng=rng, **augment.options)
        except SubsettuneError:
            raise
        except Exception as error:  # whatever the user's function raises
            reason = " ".join(str(error).split()).rstrip(".")
            raise ConfigError(
                f"augment {name!r} fails on inputs of shape {shape}: {type(error).__name__}: {reason}. It is called "
                "with them, with rng, and with its options."
            ) from error
        if not isinstance(changed, Tensor) or changed.shape != inputs.shape or changed.dtype != inputs.dtype:
            got = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
            raise ConfigError(must(f"augment {name!r}", f"inputs as it got them, {inputs.dtype} {shape}", got))
        return changed

    return change


def _of_torchvision(asked: Mapping[str, Any]) -> Change:
    """A transform of torchvision by name, of one image (c, h, w).

    Raises:
        ConfigError: it is unknown or changes colours, or refuses its options.
    """
    name, options = asked["name"], {key: value for key, value in asked.items() if key != "name"}
    if name not in GEOMETRIC:
        advice = "Images are standardised when they are augmented, so that those of colours would change them wrongly."
        raise ConfigError(must("augment.torchvision", f"one of {', '.join(GEOMETRIC)}", name, advice))
    from torchvision.transforms import v2  # takes a second to load

    made: Change = call(getattr(v2, name), f"torchvision {name}", options)
    return made


def transformed(images: Tensor, transforms: Sequence[Change], rng: torch.Generator) -> Tensor:
    """Each image by itself through transforms that draw from torch's global state, which comes back as it was.

    Args:
        images: (b, c, h, w).
        transforms: of one image; together they keep its shape.
        rng: of which one number seeds them.

    Raises:
        ConfigError: an image has another shape after them.
    """
    seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        changed = [functools.reduce(lambda one, change: change(one), transforms, image) for image in images]
    if any(one.shape != images.shape[1:] for one in changed):
        got = next(tuple(one.shape) for one in changed if one.shape != images.shape[1:])
        rule = f"transforms that keep the shape {tuple(images.shape[1:])} of an image"
        raise ConfigError(must("augment.torchvision", rule, got, "Give the size of the images as size."))
    return torch.stack(changed)


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
