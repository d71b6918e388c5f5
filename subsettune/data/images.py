"""Images as arrays: encoded bytes, PIL images and plain arrays all become (channels, height, width)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from subsettune.data.raw import Array
from subsettune.errors import DataError
from subsettune.extras import needed_for

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")  # and I;16 and its like: more bits than uint8 holds
CHANNELS = (1, 3, 4)


def decode(content: bytes, where: str) -> Array:
    """Decode a PNG, JPEG or other image that Pillow reads.

    Args:
        content: the encoded image.
        where: for the message, like `row 7`.

    Returns:
        (1, h, w) uint8 of a grey image, else (3, h, w): a palette is looked up, transparency dropped.

    Raises:
        DataError: it cannot be decoded, or has more than 8 bits a channel.
    """
    with needed_for("an encoded image"):
        from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            return pixels(image, where)
    except (UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"image in {where} cannot be decoded: {error}. Write it again, as PNG or JPEG.") from error


def pixels(image: Image, where: str) -> Array:
    """A PIL image as an array: (1, h, w) uint8 where it is grey, else (3, h, w)."""
    if image.mode.startswith(DEEP_MODES):
        raise DataError(
            f"images must have 8 bits a channel, got mode {image.mode!r} ({where}). Convert them beforehand."
        )
    if image.mode in GREY_MODES:
        return np.asarray(image.convert("L"))[None]
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of the direct way
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def channels_first(x: Array, axis: int = 0) -> Array:
    """Examples of two dimensions get a channel; images with channels last are turned round. Others stay as they are.

    Args:
        x: one example, or many along the axes before `axis`.
        axis: first axis of an example.

    Returns:
        A view of x.
    """
    dims, first, last = x.ndim - axis, x.shape[axis], x.shape[-1]
    if dims == 2:
        return np.expand_dims(x, axis)
    if dims == 3 and last in CHANNELS and first not in (1, 3, last):
        return np.moveaxis(x, -1, axis)
    return x


def check_shape(shape: tuple[int, ...], first: tuple[int, ...], where: str) -> None:
    """Refuse examples of several shapes.

    Raises:
        DataError: `shape` is not that of the first example.
    """
    if shape == first:
        return
    if len(shape) == len(first) == 3 and shape[1:] == first[1:]:
        raise DataError(
            f"images must be all grey or all RGB, got {first[0]} and {shape[0]} channels ({where}). "
            "Convert them beforehand."
        )
    raise DataError(f"inputs must have one shape, got {first} and {shape} ({where}). Resize them beforehand.")
