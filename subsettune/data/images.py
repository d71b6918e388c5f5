"""Images as arrays: encoded bytes and PIL images become (channels, height, width), as they are meant to be seen.

What a file says of its orientation (EXIF) is carried out. What is transparent lies on white. More than 8 bits a channel
are kept. A file of several pictures, and one that Pillow would cut to 8 bits, is refused: nothing is lost in silence.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from subsettune.data.raw import Array
from subsettune.errors import DataError
from subsettune.extras import needed_for
from subsettune.task import Data

if TYPE_CHECKING:
    from PIL.Image import Image

GREY_MODES = ("1", "L", "LA", "La")
DEEP_MODES = ("I", "F")  # and I;16 and its like: more bits than uint8 holds, and grey all of them
TRANSPARENT_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
CUT_TO_8_BITS = re.compile(r";16[BLN]$")  # what a file holds, where Pillow's mode is one of bytes
ONE_PICTURE = ("MPO", "PSD")  # formats whose first picture is the whole one; the others are previews, or layers
ORIENTATION, UPRIGHT, SIDEWAYS = 0x0112, 1, 5  # EXIF's tag; its value of most images; from which on they lie
CONVERT = "Convert them beforehand."
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow has it
RECOLOUR = "Make all of them so: data.color: rgb, or grey."
BEFOREHAND = "Resize them beforehand."
RESIZE = "Scale them to one: data.resize: [64, 64], or another height and width."
EXACT_IN_FLOAT32 = 2**24
WHITE_16 = 65535
# What Pillow raises of damaged files; it has no one class for it.
UNREADABLE = (OSError, SyntaxError, EOFError, ValueError, TypeError, LookupError, RuntimeError, struct.error)


def decode(content: bytes, where: str) -> Array:
    """Decode a PNG, JPEG or other image that Pillow reads.

    Args:
        content: the encoded image.
        where: for the message, like `row 7 of train.parquet`.

    Returns:
        (1, h, w) of a grey image, else (3, h, w), a palette looked up: uint8, or float32 of more than 8 bits a channel,
        as the file has them: 0 to 65,535 of 16 bits.

    Raises:
        DataError: it cannot be decoded, has several frames, or loses something.
    """
    with needed_for("an encoded image"):
        from PIL import Image

    with _readable(where), Image.open(io.BytesIO(content)) as image:
        return _deep_colour(image, content, where) if _is_cut(image, content) else _seen(image, where)


def pixels(image: Image, where: str) -> Array:
    """A PIL image as an array, as `decode` gives it.

    Raises:
        DataError: it cannot be decoded, has several frames, or loses something.
    """
    with _readable(where):
        if _is_cut(image, b""):
            raise _too_deep(image, where)
        return _seen(image, where)


@contextlib.contextmanager
def _readable(where: str) -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that Pillow cannot read: the pixels are there, or it raises
            yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        reason = "Pillow knows no such format, or it is damaged from the start"
        raise DataError(f"image in {where} cannot be decoded: {reason}. Write it again, as PNG or JPEG.") from error
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise DataError(f"image in {where} cannot be decoded: {reason}. Write it again, as PNG or JPEG.") from error


def _seen(image: Image, where: str) -> Array:
    """(1, h, w) where it is grey, else (3, h, w); uint8, or float32 of more than 8 bits."""
    from PIL import ImageOps

    _refuse_frames(image, where)
    if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:  # else there is nothing to copy
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(DEEP_MODES):
        return _deep_grey(image, where)
    is_grey = image.mode in GREY_MODES
    if image.mode in TRANSPARENT_MODES or "transparency" in image.info:
        image = _on_white(image, where)
    if is_grey:
        return np.asarray(image.convert("L"))[None]
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def size_of(file: Path) -> tuple[int, int] | None:
    """Height and width of a picture as it is seen, from the beginning of its file; None of one that is damaged."""
    with needed_for("an encoded image"):
        from PIL import Image, UnidentifiedImageError

    with (
        warnings.catch_warnings(),
        contextlib.suppress(UnidentifiedImageError, *UNREADABLE, Image.DecompressionBombError),
    ):
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            turned = image.getexif().get(ORIENTATION, UPRIGHT) >= SIDEWAYS
            return (image.width, image.height) if turned else (image.height, image.width)
    return None


def fitted(image: Array, data: Data) -> Array:
    """Pixels (c, h, w) with the colour and the size that a task asks for; as they are where it asks for none."""
    return resized(coloured(image, data.color), data.size)


def coloured(image: Array, color: str | None) -> Array:
    """Pixels (c, h, w) as three equal channels of a grey picture, or as the brightness of a coloured one."""
    if color is None or len(image) == (1 if color == "grey" else 3):
        return image
    if color == "rgb":
        return np.repeat(image, 3, axis=0)
    grey = np.tensordot(np.array(LUMINANCE), image.astype(np.float64), axes=1)[None]
    return np.rint(grey).astype(np.uint8) if image.dtype == np.uint8 else grey.astype(np.float32)


def resized(image: Array, size: tuple[int, int] | None) -> Array:
    """Pixels (c, h, w) scaled to a height and width, averaged over what becomes one pixel; the same without a size."""
    if size is None or image.shape[1:] == size:
        return image
    from PIL import Image

    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in image]
    height, width = size
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR)) for plane in planes])


def check_shape(
    shape: tuple[int, ...], first: tuple[int, ...], where: str, advice: str = BEFOREHAND, recolour: str = CONVERT
) -> None:
    """Refuse examples of several shapes.

    Raises:
        DataError: `shape` is not that of the first example.
    """
    if shape == first:
        return
    if len(shape) == len(first) == 3 and shape[1:] == first[1:]:
        raise DataError(
            f"images must be all grey or all RGB, got {first[0]} and {shape[0]} channels ({where}). {recolour}"
        )
    raise DataError(f"inputs must have one shape, got {first} and {shape} ({where}). {advice}")


def _refuse_frames(image: Image, where: str) -> None:
    number = getattr(image, "n_frames", 1)
    if number > 1 and getattr(image, "format", None) not in ONE_PICTURE:
        raise DataError(
            f"images must hold one picture, got {number} in a {image.format} ({where}). Write the one that counts as "
            "PNG, or a row for each."
        )


def _on_white(image: Image, where: str) -> Image:
    """What a viewer with a white page shows. What is opaque stays as it is, bit for bit."""
    from PIL import Image

    seen = image.convert("RGBA")
    transparent = np.asarray(seen)[..., 3]
    shown = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    if not _varies(np.asarray(shown)) and _varies(transparent[..., None]):
        raise _lost_on_white(where)
    return shown


def _varies(x: Array) -> bool:
    """Whether the pixels (h, w, c) differ."""
    return bool((x != x[:1, :1]).any())


def _lost_on_white(where: str) -> DataError:
    return DataError(
        f"images must be seen on white, got white on transparent ({where}): all of it would be white. Put the images "
        "on another colour beforehand."
    )


def _deep_grey(image: Image, where: str) -> Array:
    """(1, h, w) float32 of an image with more than 8 bits."""
    x = np.asarray(image)
    if x.dtype.kind == "i" and x.size and np.abs(x.astype(np.int64)).max() > EXACT_IN_FLOAT32:
        raise DataError(f"images must be exact in float32, got above {EXACT_IN_FLOAT32:,} ({where}). Scale them.")
    return _key_on_white(x[None].astype(np.float32), image.info.get("transparency"))


def _key_on_white(x: Array, key: Any) -> Array:
    """Pixels (c, h, w) of the one colour that a PNG without alpha says is transparent become white."""
    if key is None:
        return x
    colour = np.asarray(key, dtype=np.float32).reshape(-1, 1, 1)
    return np.where((x == colour).all(axis=0), np.float32(WHITE_16), x)


def _deep_colour(image: Image, content: bytes, where: str) -> Array:
    """(c, h, w) float32 of 16 bits a channel with colour or transparency, of which Pillow gives the high bytes alone.

    Read the other way round, low byte first, the high bytes that it gives are the low ones.
    """
    _refuse_frames(image, where)
    bytes_of = [BYTES.get(str(_raw_mode(tile[3])), ()) for tile in image.tile]  # type: ignore[attr-defined]
    if not content or len(set(bytes_of)) != 1 or not bytes_of[0]:
        raise _too_deep(image, where)
    planes = [_plane(content, raw_mode) for raw_mode in bytes_of[0]]
    if len(planes) == 1:  # both bytes of both channels
        planes = [planes[0][::2], planes[0][1::2]]
    x: Array = planes[0] * np.float32(256) + planes[1]
    if len(x) == 3:
        return _key_on_white(x, image.info.get("transparency"))
    colour, alpha = x[:-1], x[-1] / np.float32(WHITE_16)
    shown: Array = colour * alpha + np.float32(WHITE_16) * (1 - alpha)
    if not _varies(shown.transpose(1, 2, 0)) and _varies(alpha[..., None]):
        raise _lost_on_white(where)
    return shown


def _plane(content: bytes, raw_mode: str) -> Array:
    """(c, h, w) float32 of an image, its pixels unpacked in another way than its file says."""
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as image:
        image.tile = [_unpacked(tile, raw_mode) for tile in image.tile]
        turned = np.asarray(ImageOps.exif_transpose(image))
    return turned.transpose(2, 0, 1).astype(np.float32)


def _unpacked(tile: Any, raw_mode: str) -> Any:
    """A tile of Pillow's with another raw mode; older versions have plain tuples."""
    given = tile[3]
    arguments = (raw_mode, *given[1:]) if isinstance(given, tuple) else raw_mode
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _too_deep(image: Image, where: str) -> DataError:
    return DataError(
        f"images with more than 8 bits a channel must be PNG, TIFF or grey, got {image.format} in {image.mode} "
        f"({where}): it would be cut to 8 bits. Write it as PNG, or its pixels as arrays."
    )


# Raw modes that give the high bytes and the low ones; or both, of grey and alpha as if they were four channels.
_NATIVE, _SWAPPED = ("L", "B") if sys.byteorder == "little" else ("B", "L")
BYTES = {
    **{f"{mode};16B": (f"{mode};16B", f"{mode};16L") for mode in ("RGB", "RGBA")},
    **{f"{mode};16L": (f"{mode};16L", f"{mode};16B") for mode in ("RGB", "RGBA")},
    **{f"{mode};16N": (f"{mode};16{_NATIVE}", f"{mode};16{_SWAPPED}") for mode in ("RGB", "RGBA")},
    "LA;16B": ("RGBA",),
}


# --- what Pillow would cut -----------------------------------------------------------------------------------------


def _is_cut(image: Image, content: bytes) -> bool:
    """Whether an image that is not yet decoded has more bits a channel than Pillow would give."""
    if image.mode.startswith(DEEP_MODES):
        return False
    tiles = getattr(image, "tile", None) or ()
    if any(CUT_TO_8_BITS.search(str(_raw_mode(tile[3]))) for tile in tiles):
        return True
    is_deep = DEEP_FORMATS.get(str(getattr(image, "format", None)))
    return is_deep is not None and is_deep(tiles, content)


def _raw_mode(arguments: Any) -> Any:
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _is_deep_ppm(tiles: Any, _: bytes) -> bool:
    """The decoder of colour is told the largest value, unless that is 255."""
    return any(isinstance(tile[3], tuple) and len(tile[3]) > 1 and _above_255(tile[3][1]) for tile in tiles)


def _above_255(value: Any) -> bool:
    return isinstance(value, int) and value > 255


def _is_deep_jpeg_2000(_: Any, content: bytes) -> bool:
    """The marker SIZ has a byte for each channel: its bits less 1, and in the highest bit its sign. T.800, A.5.1."""
    start = content.find(b"\xff\x4f\xff\x51")
    return start >= 0 and len(content) > start + 42 and (content[start + 42] & 0x7F) + 1 > 8


def _is_deep_avif(_: Any, content: bytes) -> bool:
    """The box av1C has a flag for 10 and 12 bits in its third byte. AV1 in ISOBMFF 1.2, 2.3.3."""
    start = content.find(b"av1C")
    return start >= 0 and len(content) > start + 6 and bool(content[start + 6] & 0x40)


DEEP_FORMATS: dict[str, Callable[[Any, bytes], bool]] = {
    "PPM": _is_deep_ppm,
    "JPEG2000": _is_deep_jpeg_2000,
    "AVIF": _is_deep_avif,
}
