"""What an example is: an image, a series, a row of token ids, or numbers that stand for themselves.

| `data.layout` | of examples | networks get | standardised |
|---|---|---|---|
| `image` | (h, w), (c, h, w) or (h, w, c) | (c, h, w) float32 | each channel |
| `series` | (t,) or (c, t): channels first, then time | (c, t) float32 | each channel |
| `tokens` | (t,) whole numbers, 0 or more | (t,) int64 | nothing |
| `flat` | of any shape | (d,) float32 | each number |

Without the key the shape decides: two dimensions are a grey image, three an image, others numbers that stand for
themselves. Where that is a guess, the reader notes it as `taken`, and the plan of a study tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from subsettune.data.raw import Array
from subsettune.errors import DataError

CHANNELS = (1, 3, 4)
MOST_IDS = 2**24  # a table of embeddings with 16 numbers for each id takes a gigabyte
OWN_IDS = "ids"  # of `Raw.tokens`: the user's own, of no text that was read here


def arranged(x: Array, layout: str | None, where: str, axis: int = 0) -> Array:
    """Examples in the shape that networks get.

    Args:
        x: one example, or many along the axes before `axis`.
        layout: what the task says that an example is; None for what the shape says.
        where: for the message, like `array 'x' of data.npz`.
        axis: first axis of an example.

    Returns:
        A view of x where there can be one.

    Raises:
        DataError: the examples have other dimensions than the layout.
    """
    return ARRANGED[layout](x if x.ndim > axis else np.expand_dims(x, axis), axis, where)


def arranged_image(x: Array, layout: str | None, where: str) -> Array:
    """A decoded image (c, h, w) as networks get it: what it is, is known, and only `flat` changes that.

    Raises:
        DataError: the layout is not for images.
    """
    if layout in (None, "image"):
        return x
    if layout == "flat":
        return x.reshape(-1)
    raise DataError(f"data.layout of images must be image or flat, got {layout!r} ({where}). Remove the key.")


def stored_type(found: np.dtype[Any], layout: str | None) -> np.dtype[Any]:
    """The type in which inputs are stored: uint8 and token ids take less than float32."""
    if layout == "tokens":
        return np.dtype(np.int32)
    return np.dtype(np.uint8 if found == np.uint8 else np.float32)


def check_ids(x: Array, where: str) -> None:
    """Refuse what cannot be token ids.

    Args:
        x: any shape.
        where: for the message.

    Raises:
        DataError: they are no whole numbers, or not in [0, `MOST_IDS`).
    """
    advice = "Number the ids 0, 1, 2, ..., or set data.layout to flat."
    if x.dtype.kind not in "iu":
        raise DataError(f"token ids must be whole numbers, got {x.dtype} ({where}). {advice}")
    if x.size and not 0 <= int(x.min()) <= int(x.max()) < MOST_IDS:
        odd = int(x.min()) if int(x.min()) < 0 else int(x.max())
        raise DataError(f"token ids must be in [0, {MOST_IDS:,}), got {odd} ({where}). {advice}")


def taken_for(shape: tuple[int, ...], found: np.dtype[Any]) -> str:
    """What examples were taken for without a layout, where their shape leaves that open; else empty.

    Args:
        shape: of an example as the source gives it.
        found: type of its numbers.

    Returns:
        `grey`, an image of one channel; `channels_last`, an image that was turned round, of other numbers than bytes;
        `channels_first`, an image that was not, though no axis looks like its channels, or two do; `numbers`, whole
        ones that may be ids.
    """
    if len(shape) == 1:
        return "numbers" if found.kind in "iu" and shape[0] > 1 else ""
    if len(shape) == 2:
        return "grey"
    if len(shape) != 3:
        return ""
    if _has_channels_last(shape):
        return "" if found == np.uint8 else "channels_last"
    return "" if shape[0] in CHANNELS and shape[-1] not in CHANNELS else "channels_first"


def _has_channels_last(shape: tuple[int, ...]) -> bool:
    first, last = shape[0], shape[-1]
    return last in CHANNELS and first not in (1, 3, last)


def _by_shape(x: Array, axis: int, where: str) -> Array:
    return _image(x, axis, where) if x.ndim - axis in (2, 3) else x


def _image(x: Array, axis: int, where: str) -> Array:
    shape = x.shape[axis:]
    if len(shape) == 2:
        return np.expand_dims(x, axis)
    if len(shape) != 3:
        wanted = "(height, width), (channels, height, width) or (height, width, channels)"
        raise _misfit("image", wanted, shape, where)
    return np.moveaxis(x, -1, axis) if _has_channels_last(shape) else x


def _series(x: Array, axis: int, where: str) -> Array:
    shape = x.shape[axis:]
    if len(shape) > 2:
        raise _misfit("series", "(channels, time) or (time,)", shape, where)
    return np.expand_dims(x, axis) if len(shape) == 1 else x


def _tokens(x: Array, axis: int, where: str) -> Array:
    if x.ndim - axis != 1:
        raise _misfit("tokens", "(time,)", x.shape[axis:], where)
    return x


def _flat(x: Array, axis: int, _: str) -> Array:
    return x.reshape(*x.shape[:axis], -1)


def _misfit(layout: str, wanted: str, shape: tuple[int, ...], where: str) -> DataError:
    return DataError(f"examples of data.layout {layout} must be {wanted}, got {shape} ({where}). Reshape them.")


ARRANGED: dict[str | None, Callable[[Array, int, str], Array]] = {
    None: _by_shape,
    "image": _image,
    "series": _series,
    "tokens": _tokens,
    "flat": _flat,
}
