"""Pictures in files, as models that were trained on folders of them are asked about them."""

from __future__ import annotations

from pathlib import Path

import in_hand
import numpy as np
import pytest
import torch
from PIL import Image

from subsettune import Task, TrainedModel, load_model
from subsettune.data import load
from subsettune.errors import DataError
from subsettune.trained.encoding import Encoding
from subsettune.trained.write import table_of

RNG = np.random.default_rng(0)
FITTED = {"resize": [8, 8], "color": "rgb"}


def picture(path: Path, level: int, height: int = 10, grey: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, 9) if grey else (height, 9, 3)
    Image.fromarray(np.clip(RNG.normal(level, 30, shape), 0, 255).astype(np.uint8)).save(path)


def photos(root: Path, num: int = 20) -> Path:
    for name, level in (("0", 60), ("dog", 180)):
        for i in range(num):
            picture(root / name / f"{i:02d}.png", level, 10 + i % 3, grey=i % 4 == 0)
    return root


def task_of(root: Path) -> Task:
    data = {"source": str(root), **FITTED}
    return in_hand.task_of("", data=data, model={"name": "cnn", "channels": [4]})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    root = photos(tmp_path_factory.mktemp("pictures") / "photos")
    made, _ = in_hand.trained(task_of(root))
    made.save(root.parent / "model")
    return load_model(root.parent / "model"), root


def test_every_picture_comes_out_as_in_training(model: tuple[TrainedModel, Path]) -> None:
    made, root = model
    data = load(task_of(root), in_hand.PLACES)
    part, _ = made.encoding.part(made.read(str(root)))
    assert torch.equal(part.batch(torch.arange(40))[0], data.train.encoder(data.train.inputs))
    assert made.classes == ("0", "dog")
    assert made.encoding.outputs.are_numbers is False


def test_a_folder_of_classes_is_scored_and_named(model: tuple[TrainedModel, Path]) -> None:
    made, root = model
    found = made.examine(made.read(str(root)))
    assert found.metric is not None
    assert found.metric > 0.9
    table = table_of(found, made, with_probabilities=True)
    assert table.column_names == ["picture", "prediction", "probability of 0", "probability of dog"]
    assert table["picture"][0].as_py() == "0/00.png"


def test_pictures_without_classes(model: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    made, root = model
    one = made.examine(made.read(str(root / "dog/01.png")))
    assert (one.values.tolist(), one.metric, one.names) == (["dog"], None, ("01.png",))
    picture(tmp_path / "new/b.PNG", 180, 30)
    picture(tmp_path / "new/more/a.png", 60, 5, grey=True)
    some = made.examine(made.read(str(tmp_path / "new")))
    assert (some.names, some.metric) == (("b.PNG", "more/a.png"), None)
    assert made.predict([Image.open(tmp_path / "new/b.PNG"), Image.open(root / "0/00.png")]).shape == (2,)


def test_what_cannot_be_read_is_refused(model: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    made, _ = model
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "half/dog/a.png", 60)
    picture(tmp_path / "half/cow/a.png", 60)
    picture(tmp_path / "loose/dog/a.png", 60)
    picture(tmp_path / "loose/z.png", 60)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_text("no picture")
    (tmp_path / "a.txt").touch()
    for name, message in {
        "empty": "folder FOLDER/empty must hold pictures, got none. Give a picture, or a folder that has some.",
        "half": "must be called as the classes that the model knows (0, dog), all or none, got 'dog' and folder 'cow'.",
        "loose": "(0, dog), all or none, got 'dog' and 'z.png' in no folder. Rename or move it.",
        "bad": "image in a.png cannot be decoded: Pillow knows no such format, or it is damaged from the start.",
        "a.txt": "FILE must be a file of .parquet, .csv, .csv.gz, .tsv, .tsv.gz, .npz, a picture or a folder of pictur",
    }.items():
        with pytest.raises(DataError) as caught:
            made.predict(made.read(str(tmp_path / name)))
        assert message in str(caught.value).replace(str(tmp_path), "FOLDER")


def test_a_folder_in_parts(tmp_path: Path) -> None:
    photos(tmp_path / "p/train")
    photos(tmp_path / "p/test", 5)
    task = in_hand.task_of(
        "", data={"source": str(tmp_path / "p"), **FITTED}, model={"name": "cnn", "channels": [4]}, split={}
    )
    made, result = in_hand.trained(task)
    assert made.score(made.read(str(tmp_path / "p/test"))) == result.metrics["test"]
    twisted = load(task, in_hand.PLACES)
    assert isinstance(Encoding.of(task, twisted), Encoding)
