"""Flip and crop on batches against an oracle that treats one image at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from subsettune import config
from subsettune.data.augment import crop, flip, make_augment
from subsettune.errors import ConfigError
from subsettune.task import Augment


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(b: int = 64, side: int = 8) -> torch.Tensor:
    return torch.randn(b, 3, side, side + 2, generator=rng(9))


def slow_flip(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    coins = torch.rand(len(x), generator=generator).tolist()
    out = torch.empty_like(x)
    for i, coin in enumerate(coins):
        for column in range(x.shape[3]):
            out[i, :, :, column] = x[i, :, :, x.shape[3] - 1 - column if coin < 0.5 else column]
    return out


def slow_crop(x: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    tops, lefts = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=generator).tolist()
    out = torch.zeros_like(x)
    for i in range(len(x)):
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                r, c = row + tops[i] - padding, column + lefts[i] - padding
                if 0 <= r < x.shape[2] and 0 <= c < x.shape[3]:
                    out[i, :, row, column] = x[i, :, r, c]
    return out


def test_flip_and_crop_are_their_slow_twins() -> None:
    x = images()
    assert torch.equal(flip(x, rng()), slow_flip(x, rng()))
    assert torch.equal(crop(x, 3, rng()), slow_crop(x, 3, rng()))


def test_channels_last_images_give_the_same() -> None:
    x = images()
    change = make_augment(Augment(flip=True, crop_padding=2), (3, 8, 10), rng())
    again = make_augment(Augment(flip=True, crop_padding=2), (3, 8, 10), rng())
    assert change is not None
    assert again is not None
    out = change(x)
    assert out.shape == x.shape
    assert torch.equal(out, again(x.contiguous(memory_format=torch.channels_last)))


def test_half_are_flipped_and_all_shifts_are_drawn() -> None:
    x = torch.arange(4.0).expand(4000, 1, 4, 4).contiguous()
    flipped = (flip(x, rng())[:, 0, 0, 0] == 3).float().mean()
    assert abs(float(flipped) - 0.5) < 0.04  # five standard errors
    marked = torch.zeros(4000, 1, 3, 3)
    marked[:, 0, 1, 1] = 1
    places = crop(marked, 1, rng()).flatten(1).sum(0)
    assert bool((places > 4000 / 9 * 0.75).all())


def test_only_the_generator_handed_in_decides() -> None:
    before = torch.get_rng_state()
    outs = []
    for seed in (0, 0, 1):
        change = make_augment(Augment(flip=True, crop_padding=2), (3, 8, 10), rng(seed))
        assert change is not None
        outs.append(change(images()))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(before, torch.get_rng_state())


def test_off_is_none_and_the_input_is_left_alone() -> None:
    assert make_augment(Augment(), (3, 8, 8), rng()) is None
    assert make_augment(Augment(), (5,), rng()) is None
    x = images()
    kept = x.clone()
    change = make_augment(Augment(flip=True, crop_padding=1), (3, 8, 10), rng())
    assert change is not None
    change(x)
    assert torch.equal(x, kept)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment needs images .*got inputs of shape \(5,\)\. Switch it off"):
        make_augment(Augment(flip=True), (5,), rng())
    with pytest.raises(ConfigError, match="crop_padding must be below the image's side, got 8"):
        make_augment(Augment(crop_padding=8), (3, 8, 8), rng())


def changed(augment: Augment, seed: int = 0, shape: tuple[int, ...] = (3, 8, 10)) -> torch.Tensor:
    made = make_augment(augment, shape, rng(seed))
    assert made is not None
    return made(torch.arange(4 * torch.Size(shape).numel()).reshape(4, *shape).float())


def test_a_function_of_the_user_s_own_gets_inputs_of_any_shape_and_the_generator() -> None:
    augment = Augment(function="own_goals:noisy", options={"scale": 2.0})  # type: ignore[arg-type]
    found = changed(augment, shape=(5,))
    expected = torch.arange(20).reshape(4, 5) + 2.0 * torch.randn(4, 5, generator=rng())
    assert torch.equal(found, expected)
    assert not torch.equal(changed(augment, 1, (5,)), found)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"function": "own_goals:flat"},
            "augment 'own_goals:flat' must be inputs as it got them, torch.float32 (4, 3, 8, 10), got 'torch.float32",
        ),
        (
            {"function": "own_goals:noisy", "options": {"size": 1}},
            "TypeError: noisy() got an unexpected keyword argument",
        ),
        (
            {"torchvision": [{"name": "ColorJitter"}]},
            "augment.torchvision must be one of RandomHorizontalFlip, RandomVerticalFlip, RandomRotation",
        ),
        (
            {"torchvision": [{"name": "RandomRotation", "angle": 1}]},
            "torchvision RandomRotation does not fit its options",
        ),
        (
            {"torchvision": [{"name": "RandomCrop", "size": 4}]},
            "must be transforms that keep the shape (3, 8, 10) of an",
        ),
        ({"torchvision": [{"degrees": 4}]}, "torchvision must be transforms, each with a name"),
        ({"options": {"scale": 1}}, "options are those of function, and there is none. Name it."),
    ],
)
def test_augmentations_that_cannot_be_made(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(config.build(Augment, given))
    assert expected in str(caught.value)


def test_transforms_of_torchvision_draw_for_each_image_from_the_generator_alone() -> None:
    augment = config.build(Augment, {"torchvision": [{"name": "RandomRotation", "degrees": 90}]})
    state = torch.get_rng_state()
    first = changed(augment)
    torch.manual_seed(5)
    assert torch.equal(changed(augment), first)
    torch.set_rng_state(state)
    assert not torch.equal(changed(augment, 1), first)
    flip_all = config.build(Augment, {"torchvision": [{"name": "RandomHorizontalFlip", "p": 1.0}]})
    assert torch.equal(changed(flip_all), torch.arange(4 * 240).reshape(4, 3, 8, 10).float().flip(3))
    half = config.build(Augment, {"torchvision": [{"name": "RandomHorizontalFlip"}]})
    made = make_augment(half, (1, 2, 2), rng())
    assert made is not None
    flipped = made(torch.arange(2).float().expand(50, 1, 2, 2))[:, 0, 0, 0]
    assert 10 < int(flipped.sum()) < 40
