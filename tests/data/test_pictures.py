"""A folder for each class: whole or in parts, of several sizes, damaged, or not what it seems."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tables import load_source

from subsettune.data.mendable import MendableDataError
from subsettune.errors import DataError

RNG = np.random.default_rng(0)


def picture(path: Path, height: int = 8, width: int = 6, level: int = 100, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width) if grey else (height, width, 3)
    Image.fromarray(np.clip(RNG.normal(level, 30, shape), 0, 255).astype(np.uint8)).save(path)


def photos(root: Path, num: int = 12, **sizes: tuple[int, int]) -> Path:
    for name, level in (("cat", 60), ("dog", 180)):
        for i in range(num):
            picture(root / name / f"{i:02d}.png", *sizes.get(name, (8, 6)), level=level)
    return root


def refusal(root: Path, cache: Path, **given: object) -> str:
    with pytest.raises(DataError) as caught:
        load_source(root, cache, **given)
    return str(caught.value)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "notes.txt").write_text("mine")
    (root / ".hidden").mkdir()
    data = load_source(root, tmp_path / "cache")
    assert (data.class_names, data.input_shape) == (("cat", "dog"), (3, 8, 6))
    assert data.train.all_targets.tolist() == [0] * 12 + [1] * 12
    with Image.open(root / "dog/03.png") as image:
        assert np.array_equal(data.train.inputs[15].numpy(), np.asarray(image).transpose(2, 0, 1))
    assert data.facts.left_alone == ("notes.txt",)
    assert [(column.name, column.role) for column in data.facts.columns] == [("picture", "image"), ("folder", "label")]


def test_links_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "dog/12.png").symlink_to(root / "dog/03.png")
    assert len(load_source(root, tmp_path / "cache").train.all_targets) == 25
    (root / "cat/07.png").unlink()
    (root / "cat/07.png").symlink_to(tmp_path / "gone.png")
    (root / "bird").symlink_to(tmp_path / "gone")
    assert refusal(root, tmp_path / "cache") == (
        f"links in {root} must lead to pictures, got some that lead nowhere: bird, cat/07.png. Mend or remove them."
    )


def test_another_picture_is_other_data(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    first = load_source(root, tmp_path / "cache")
    picture(root / "cat/03.png", level=90)
    second = load_source(root, tmp_path / "cache")
    picture(root / "cat/99.png")
    assert len({first.fingerprint, second.fingerprint, load_source(root, tmp_path / "cache").fingerprint}) == 3


@pytest.mark.parametrize("called", ["val", "validation"])
def test_parts_in_folders(tmp_path: Path, called: str) -> None:
    root = tmp_path / "photos"
    for part, num in (("train", 12), (called, 3), ("test", 4)):
        photos(root / part, num)
    picture(root / "train/cat/deeper/1.png")
    data = load_source(root, tmp_path / "cache")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [25, 6, 8]
    assert data.from_files == {"validation": True, "test": True}
    shutil.rmtree(root / called)
    data = load_source(root, tmp_path / "cache", split={"validation": 0.2})
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 5, 8]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Of vehicles, say: its folder holds pictures, and no folders of classes."""
    for name in ("train", "car"):
        for i in range(9):
            picture(tmp_path / "p" / name / f"{i}.png")
    assert load_source(tmp_path / "p", tmp_path / "cache").class_names == ("car", "train")


def test_several_sizes(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", cat=(40, 30), dog=(600, 300))
    with pytest.raises(MendableDataError) as caught:
        load_source(root, tmp_path / "cache")
    assert str(caught.value) == (
        f"pictures of {root} must have one size, got 2 (height x width): 40 x 30 (12), 600 x 300 (12). Scale them "
        "to one: data.resize: [224, 112]."
    )
    assert caught.value.changes == {"resize": [224, 112]}
    assert load_source(root, tmp_path / "cache", resize=[10, 20]).input_shape == (3, 10, 20)
    square = load_source(root, tmp_path / "cache", resize=9)
    assert square.input_shape == (3, 9, 9)
    assert square.train.inputs[12:].float().mean() == pytest.approx(180, abs=3)  # averaged, not sampled
    assert square.train.inputs[12:].float().std() < 5


def test_the_size_is_that_which_is_seen(tmp_path: Path) -> None:
    """A camera's note turns a picture; its file has the sides the other way round."""
    root = photos(tmp_path / "photos")
    turned = Image.fromarray(np.full((6, 8, 3), 50, dtype=np.uint8))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "cat/99.jpg", exif=exif)
    assert load_source(root, tmp_path / "cache").input_shape == (3, 8, 6)


def test_one_size_asked_for_is_no_change(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    same = load_source(root, tmp_path / "cache", resize=[8, 6])
    assert torch.equal(same.train.inputs, load_source(root, tmp_path / "cache").train.inputs)


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    (root / "cat/05.png").write_text("I am a text")
    whole = (root / "dog/07.png").read_bytes()
    (root / "dog/07.png").write_bytes(whole[:60])
    assert refusal(root, tmp_path / "cache") == (
        "image in photos/cat/05.png cannot be decoded: Pillow knows no such format, or it is damaged from the start. "
        "Write it again, as PNG or JPEG. So it is with 1 more: photos/dog/07.png."
    )


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    cache, root = tmp_path / "cache", photos(tmp_path / "photos")
    (root / "bird").mkdir()
    assert refusal(root, cache) == (
        "folder photos/bird must hold pictures of its class, got none. Add some, or remove the folder."
    )
    picture(root / "bird/1.png")
    assert refusal(root, cache) == (
        "class 'bird' must have at least 3 examples, one for each part (training, test, validation), got 1. Add "
        "examples, or drop the class."
    )
    picture(root / "lost.png")
    assert refusal(root, cache) == (f"pictures must lie in the folder of their class, got lost.png in {root}. Move it.")
    parts = tmp_path / "parts"
    photos(parts / "train")
    picture(parts / "test/1.png")
    assert refusal(parts, cache) == (
        f"folder {parts / 'test'} must hold a folder of pictures for each class, as {parts / 'train'} does. Without "
        "classes nothing can be judged on it: move it elsewhere, and a test part is drawn."
    )
    shutil.rmtree(parts / "test")
    photos(parts / "extra")
    assert refusal(parts, cache) == (
        f"folder {parts} must hold train, and perhaps val and test, got 'extra' beside them. Move it elsewhere."
    )


def test_grey_beside_colour_and_keys_that_mean_nothing(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    assert refusal(root, tmp_path / "cache", label="kind") == (
        "data.label means nothing to folders of pictures. Remove the key."
    )
    assert refusal(root, tmp_path / "cache", split={"by": "x"}) == (
        "split by 'x' means nothing to folders of pictures, which have no such column. Remove the key."
    )
    picture(root / "dog/99.png", grey=True)
    assert refusal(root, tmp_path / "cache") == (
        "pictures must be all grey or all RGB, got 3 and 1 channels (photos/dog/99.png). Make all of them so: "
        "data.color: rgb, or grey."
    )


def test_grey_beside_colour_as_one_of_them(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    picture(root / "dog/99.png", grey=True)
    coloured = load_source(root, tmp_path / "cache", color="rgb")
    assert coloured.input_shape == (3, 8, 6)
    assert torch.equal(coloured.train.inputs[-1][0], coloured.train.inputs[-1][2])
    grey = load_source(root, tmp_path / "cache", color="grey")
    assert grey.input_shape == (1, 8, 6)
    assert torch.equal(grey.train.inputs[-1][0], coloured.train.inputs[-1][0])
    with Image.open(root / "cat/00.png") as image:  # Pillow rounds in whole numbers
        off = np.asarray(image.convert("L")).astype(int) - grey.train.inputs[0, 0].numpy().astype(int)
    assert np.abs(off).max() <= 1
