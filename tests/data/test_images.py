"""Pictures as people take and draw them: turned cameras, transparency, many bits, many frames, and damaged files.

Expected pixels are those that the pictures were made of, or what the EXIF and PNG standards say of them.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from subsettune.data import DataPaths, TaskData, images, load
from subsettune.data.images import decode, pixels
from subsettune.errors import DataError
from subsettune.task import Data, Model, Recipe, Task

RNG = np.random.default_rng(0)
GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 20
COLOUR = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (7, 5, 3))  # of 16 bits
# Where the first row and the first column of what is stored belong. Source: EXIF 2.32, 4.6.4, tag 274.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_16(x: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of 16 bits a channel; x is (h, w, c) with c of grey, grey and alpha, RGB or RGBA. Rows differ in filter."""
    h, w, c = x.shape
    plain = np.frombuffer(x.astype(">u2").tobytes(), np.uint8).reshape(h, -1).astype(int)
    rows = b"".join(bytes([y % 5]) + filtered(plain, y, 2 * c) for y in range(h))
    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 2: 4, 3: 2, 4: 6}[c], 0, 0, 0)
    body = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def filtered(plain: np.ndarray, y: int, size: int) -> bytes:
    """A row of bytes less what filter y % 5 predicts from left, above and between. Source: PNG 1.2, chapter 6."""
    above = plain[y - 1] if y else np.zeros_like(plain[0])
    left, corner = (np.concatenate([np.zeros(size, int), row[:-size]]) for row in (plain[y], above))
    guess = left + above - corner
    distances = np.stack([abs(guess - one) for one in (left, above, corner)])
    paeth = np.stack([left, above, corner])[distances.argmin(axis=0), np.arange(len(left))]
    predicted = [np.zeros_like(left), left, above, (left + above) // 2, paeth][y % 5]
    return bytes(((plain[y] - predicted) % 256).tolist())


def tiff_16(x: np.ndarray) -> bytes:
    """A TIFF of 16 bits a channel in RGB, which Pillow reads, and cuts, but does not write."""
    h, w, c = x.shape
    bits, start = 8 + 2 + 9 * 12 + 4, 8 + 2 + 9 * 12 + 4 + 2 * c
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, c, bits), (259, 4, 1, 1), (262, 4, 1, 2), (273, 4, 1, start)]
    tags += [(277, 4, 1, c), (278, 4, 1, h), (279, 4, 1, 2 * x.size)]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack(f"<{c}H", *[16] * c) + x.astype("<u2").tobytes()


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Pixel by pixel, (h, w) as it is stored put where the standard says."""
    row, column = SIDES[orientation]
    h, w = x.shape
    found = np.empty((h, w) if row in ("top", "bottom") else (w, h), x.dtype)
    for r, c in np.ndindex(h, w):
        along = {row: r, column: c}
        y = along["top"] if "top" in along else found.shape[0] - 1 - along["bottom"]
        left = along["left"] if "left" in along else found.shape[1] - 1 - along["right"]
        found[y, left] = x[r, c]
    return found


@pytest.mark.parametrize("orientation", SIDES)
def test_a_turned_camera_is_turned_back(orientation: int) -> None:
    expected = upright(GREY, orientation)
    for form in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        image = Image.fromarray(GREY).convert("RGB" if form == "WEBP" else "L")
        found = decode(encoded(image, form, exif=exif(orientation), **options), "row 0")
        assert np.array_equal(found[0], expected), form
    photo = np.kron(GREY, np.ones((16, 16), np.uint8))  # blocks of one grey survive JPEG
    found = decode(encoded(Image.fromarray(photo), "JPEG", quality=100, exif=exif(orientation)), "row 0")
    assert np.array_equal(found[0, 8::16, 8::16], expected)


@pytest.mark.parametrize("orientation", SIDES)
def test_a_turned_image_of_16_bits_is_turned_back(orientation: int) -> None:
    turn = chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
    found = decode(png_16(DEEP, turn), "row 0")
    assert np.array_equal(found, np.stack([upright(DEEP[..., c], orientation) for c in range(3)]))
    assert np.array_equal(decode(png_16(DEEP[..., :1], turn), "row 0")[0], upright(DEEP[..., 0], orientation))


def test_an_image_of_a_dataset_is_turned_back_too() -> None:
    image = Image.open(io.BytesIO(encoded(Image.fromarray(GREY), exif=exif(6))))
    assert np.array_equal(pixels(image, "example 0")[0], upright(GREY, 6))


def test_16_bits_are_kept() -> None:
    opaque = np.full((7, 5, 1), 65535)
    for x in (DEEP, DEEP[..., :1]):
        for content in (
            png_16(x),
            png_16(np.concatenate([x, opaque], axis=2)),
            *([tiff_16(x)] if len(x[0, 0]) > 1 else []),
        ):
            found = decode(content, "row 0")
            assert found.dtype == np.float32
            assert np.array_equal(found, x.transpose(2, 0, 1))
    assert np.array_equal(decode(tiff_16(DEEP), "row 0"), DEEP.transpose(2, 0, 1))
    grey = Image.fromarray(DEEP[..., 0].astype(np.uint16))
    for content in (encoded(grey, "TIFF"), b"P5 5 7 65535\n" + DEEP[..., 0].astype(">u2").tobytes()):
        assert np.array_equal(decode(content, "row 0")[0], DEEP[..., 0])
    for values in (np.float32([[0.5, -1.25]]), np.int32([[5, -100_000]])):
        assert np.array_equal(decode(encoded(Image.fromarray(values), "TIFF"), "row 0")[0], values)


def test_transparency_of_16_bits_lies_on_white() -> None:
    alpha = np.arange(35).reshape(7, 5, 1) % 6 * 13107  # fifths
    found = decode(png_16(np.concatenate([DEEP, alpha], axis=2)), "row 0")
    share = alpha / 65535
    np.testing.assert_allclose(found, (DEEP * share + 65535 * (1 - share)).transpose(2, 0, 1), rtol=1e-6)
    keyed = decode(png_16(DEEP[..., :1], chunk(b"tRNS", struct.pack(">H", DEEP[1, 0, 0]))), "row 0")
    assert np.array_equal(keyed[0], np.where(DEEP[..., 0] == DEEP[1, 0, 0], 65535, DEEP[..., 0]))
    colour = np.where(np.arange(35).reshape(7, 5, 1) % 4 == 0, DEEP[2, 2], DEEP)
    keyed = decode(png_16(colour, chunk(b"tRNS", struct.pack(">3H", *DEEP[2, 2]))), "row 0")
    whiter = np.where((colour == DEEP[2, 2]).all(axis=2, keepdims=True), 65535, colour)
    assert np.array_equal(keyed.transpose(1, 2, 0), whiter)


def patched(content: bytes, mark: bytes, offset: int, value: int) -> bytes:
    made = bytearray(content)
    made[content.index(mark) + offset] = value
    return bytes(made)


WHOLE = Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8))
CUT = {
    "PPM": b"P6 5 7 65535\n" + DEEP.astype(">u2").tobytes(),
    "JPEG2000": patched(encoded(WHOLE, "JPEG2000"), b"\xff\x4f\xff\x51", 42, 11),  # 12 bits
}


@pytest.mark.parametrize("form", CUT)
def test_what_pillow_would_cut_to_8_bits_is_refused(form: str) -> None:
    with pytest.raises(DataError) as caught:
        decode(CUT[form], "row 3 of a.parquet")
    assert str(caught.value) == (
        f"images with more than 8 bits a channel must be PNG, TIFF or grey, got {form} in RGB (row 3 of a.parquet): it "
        "would be cut to 8 bits. Write it as PNG, or its pixels as arrays."
    )


def test_avif_of_10_bits_is_told_by_its_flag() -> None:
    content = encoded(WHOLE, "AVIF")
    image = Image.open(io.BytesIO(content))
    assert not images._is_cut(image, content)
    assert images._is_cut(image, patched(content, b"av1C", 6, 0x4C))  # nothing here writes one


def test_an_image_of_a_dataset_that_pillow_cuts_is_refused() -> None:
    image = Image.open(io.BytesIO(png_16(DEEP)))
    with pytest.raises(
        DataError, match=r"^images with more than 8 bits a channel must be PNG, .* \(example 2\): it would"
    ):
        images.pixels(image, "example 2")


def test_8_bits_of_the_same_formats_are_read() -> None:
    for form in ("TIFF", "PPM", "JPEG2000", "PNG"):
        found = decode(encoded(WHOLE, form), "row 0")
        assert found.dtype == np.uint8
        assert np.array_equal(found.transpose(1, 2, 0), np.asarray(WHOLE)), form
    assert decode(encoded(WHOLE, "AVIF"), "row 0").shape == (3, 16, 16)
    small = Image.fromarray(COLOUR).quantize(4)
    assert decode(encoded(small, "BMP"), "row 0").shape == (3, 2, 3)


def test_whole_numbers_that_float32_does_not_hold_are_refused() -> None:
    with pytest.raises(DataError, match=r"^images must be exact in float32, got above 16,777,216 \(row 0\). Scale"):
        decode(encoded(Image.fromarray(np.int32([[1, 2**24 + 1]])), "TIFF"), "row 0")


# --- transparency ------------------------------------------------------------------------------------------------


def drawn(colour: int) -> np.ndarray:
    """(2, 3, 4) RGBA: one colour everywhere, and a stroke that only the alpha channel knows."""
    x = np.full((2, 3, 4), colour, np.uint8)
    x[..., 3] = 0
    x[:, 1, 3] = 255
    return x


STROKE = np.array([[255, 0, 255], [255, 0, 255]])


def test_a_shape_in_the_alpha_channel_is_seen_on_white() -> None:
    black = drawn(0)
    for content in (encoded(Image.fromarray(black)), encoded(Image.fromarray(black), "WEBP", lossless=True)):
        assert np.array_equal(decode(content, "row 0"), np.stack([STROKE] * 3))
    grey = Image.fromarray(black).convert("LA")
    assert np.array_equal(decode(encoded(grey), "row 0"), STROKE[None])
    palette = Image.new("P", (3, 2), 0)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((1, 0), 1)
    found = decode(encoded(palette, transparency=0), "row 0")
    assert found[:, 0].tolist() == [[255, 10, 255], [255, 20, 255], [255, 30, 255]]
    keyed = decode(encoded(Image.fromarray(GREY), transparency=40), "row 0")
    assert np.array_equal(keyed[0], np.where(GREY == 40, 255, GREY))
    assert np.array_equal(pixels(Image.fromarray(black), "example 0"), np.stack([STROKE] * 3))


def test_half_transparent_colours_are_mixed_with_white() -> None:
    x = np.concatenate([COLOUR, RNG.integers(0, 256, (2, 3, 1), dtype=np.uint8)], axis=2)
    share = x[..., 3:] / 255
    found = decode(encoded(Image.fromarray(x)), "row 0").transpose(1, 2, 0)
    np.testing.assert_allclose(found, x[..., :3] * share + 255 * (1 - share), atol=1)


def test_what_is_opaque_keeps_its_bits() -> None:
    opaque = Image.fromarray(np.concatenate([COLOUR, np.full((2, 3, 1), 255, np.uint8)], axis=2))
    assert np.array_equal(decode(encoded(opaque), "row 0").transpose(1, 2, 0), COLOUR)
    assert np.array_equal(decode(encoded(opaque.convert("LA")), "row 0")[0], np.asarray(opaque.convert("L")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "deep"])
def test_a_white_shape_that_white_would_swallow_is_refused(mode: str) -> None:
    white = drawn(255)
    deep = png_16(white.astype(np.int64) * 257)
    with pytest.raises(DataError) as caught:
        decode(deep if mode == "deep" else encoded(Image.fromarray(white).convert(mode)), "row 2 of a.parquet")
    assert str(caught.value) == (
        "images must be seen on white, got white on transparent (row 2 of a.parquet): all of it would be white. Put "
        "the images on another colour beforehand."
    )
    assert (decode(encoded(Image.new("RGBA", (3, 2), (0, 0, 0, 0))), "row 0") == 255).all()  # empty, and nothing lost


# --- modes and frames --------------------------------------------------------------------------------------------


def test_other_modes_are_what_they_show() -> None:
    bits = decode(encoded(Image.fromarray(GREY > 40)), "row 0")
    assert np.array_equal(bits[0], np.where(GREY > 40, 255, 0))
    ink = Image.new("CMYK", (3, 2), (0, 255, 100, 0))  # no cyan, all magenta, 100 of 255 yellow
    for form in ("TIFF", "JPEG"):
        found = decode(encoded(ink, form), "row 0")[:, 0, 0].astype(int)
        np.testing.assert_allclose(found, [255, 0, 155], atol=3)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PNG", "WEBP"])
def test_a_file_of_several_pictures_is_refused(form: str) -> None:
    frames = [Image.new("RGB", (3, 2), (k, 0, 0)) for k in (0, 90, 200)]
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    message = (
        f"images must hold one picture, got 3 in a {form} ({{}}). Write the one that counts as PNG, or a row for each."
    )
    with pytest.raises(DataError) as caught:
        decode(content, "row 5 of a.parquet")
    assert str(caught.value) == message.format("row 5 of a.parquet")
    image = Image.open(io.BytesIO(content))
    with pytest.raises(DataError) as caught:
        pixels(image, "example 1")
    assert str(caught.value) == message.format("example 1")
    image.seek(1)
    assert pixels(image.copy(), "example 1").shape == (3, 2, 3)  # the user chose a frame


def test_a_photo_with_a_preview_is_one_picture() -> None:
    preview = Image.new("RGB", (3, 2), (250, 250, 250))
    content = encoded(Image.new("RGB", (3, 2), (40, 40, 40)), "MPO", save_all=True, append_images=[preview])
    assert Image.open(io.BytesIO(content)).n_frames == 2  # type: ignore[attr-defined]
    np.testing.assert_allclose(decode(content, "row 0"), 40, atol=2)


@pytest.mark.parametrize(
    "form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF", "TGA", "ICO", "16 bits"]
)
def test_a_truncated_file_is_refused_or_lacks_nothing(form: str) -> None:
    content = png_16(DEEP) if form == "16 bits" else encoded(WHOLE, form)
    whole, refused = decode(content, "row 0"), []
    for length in np.linspace(0, len(content) - 1, 25).astype(int):
        try:
            found = decode(content[:length], "row 4 of b.parquet")
        except DataError as error:
            refused.append(str(error))
        else:
            assert np.array_equal(found, whole)  # what was cut off is not of the picture
    assert len(refused) >= 20
    message = re.compile(r"image in row 4 of b.parquet cannot be decoded: .+[^.]\. Write it again, as PNG or JPEG\.")
    assert all(message.fullmatch(each) for each in refused)


# --- in files ----------------------------------------------------------------------------------------------------


def load_images(tmp_path: Path, parts: dict[str, list[bytes]], **data: Any) -> TaskData:
    for name, content in parts.items():
        labels = [i % 2 for i in range(len(content))]
        pq.write_table(pa.table({"image": pa.array(content, pa.binary()), "label": labels}), tmp_path / name)
    source = tmp_path if len(parts) > 1 else tmp_path / next(iter(parts))
    task = Task(
        data=Data(source=str(source), **data),
        model=Model(name="mlp"),
        recipe=Recipe(lr=0.1, batch_size=8, epochs=1),
        tolerance=0.01,
    )
    return load(task, DataPaths(cache=str(tmp_path / "cache")))


def test_16_bits_are_trained_on(tmp_path: Path) -> None:
    data = load_images(tmp_path, {"a.parquet": [png_16((DEEP + 1000 * k) % 65536) for k in range(20)]})
    assert data.input_shape == (3, 7, 5)
    rows = data.train.rows
    stored = (DEEP.transpose(2, 0, 1)[None] + 1000 * np.arange(20)[:, None, None, None]) % 65536
    x = stored[rows.numpy()].astype(np.float64)
    mean, std = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)
    batch, _ = data.train.batch(rows.new_tensor(range(len(rows))))
    np.testing.assert_allclose(batch.numpy(), (x - mean) / std, atol=1e-5)


def test_the_row_of_a_file_is_named(tmp_path: Path) -> None:
    good = [encoded(Image.fromarray(GREY + k)) for k in range(6)]
    with pytest.raises(DataError, match=r"^image in row 2 of train-1.parquet cannot be decoded: "):
        load_images(tmp_path, {"train-0.parquet": good, "train-1.parquet": [*good[:2], good[2][:40]]})


def test_flat_images(tmp_path: Path) -> None:
    good = [encoded(Image.fromarray(GREY + k * (GREY > 40).astype(np.uint8))) for k in range(20)]
    assert load_images(tmp_path, {"a.parquet": good}, layout="image").input_shape == (1, 2, 3)
    data = load_images(tmp_path, {"b.parquet": good}, layout="flat")
    assert data.input_shape == (6,)
    batch, _ = data.train.batch(data.train.rows.new_tensor([0]))
    assert (batch[0, :3] == 0).all()  # never vary, and are standardised on their own
    with pytest.raises(DataError, match=r"^data.layout of images must be image or flat, got 'series' \(row 0 of c"):
        load_images(tmp_path, {"c.parquet": good}, layout="series")


def test_equal_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images(tmp_path, {"a.parquet": [encoded(Image.fromarray(GREY))] * 20})
    assert (
        str(caught.value)
        == "inputs must vary, got the same example 20 times. There is nothing to learn. Mend the data."
    )
