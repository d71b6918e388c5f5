"""From a task to its parts: named data sets, normalisation, fingerprints, and what a worker needs."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import shutil
import socket
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

import subsettune.data as data_module
from subsettune.data import DataPaths, load
from subsettune.errors import DataError, DataNotFoundError
from subsettune.task import Data, Model, Recipe, Split, Task

RECIPE = Recipe(lr=0.1, batch_size=64, epochs=1)
IDX = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz"


def task(source: str = "digits", metric: str = "accuracy", split: Split | None = None) -> Task:
    return Task(
        data=Data(source=source),
        model=Model(name="mlp"),
        recipe=RECIPE,
        split=split or Split(),
        metric=metric,
        tolerance=0.01,
    )


@pytest.fixture
def places(tmp_path: Path) -> DataPaths:
    return DataPaths(cache=str(tmp_path / "cache"), data_root=str(tmp_path / "root"), download=False)


@pytest.fixture
def mnist_root(tmp_path: Path) -> Path:
    """A copy of the real MNIST archives, as published."""
    kept = os.environ.get("SUBSETTUNE_DATA")
    if not kept or not (Path(kept) / "MNIST/raw/train-images-idx3-ubyte.gz").is_file():
        pytest.skip("needs the real MNIST: set SUBSETTUNE_DATA to a folder that holds MNIST/raw/*.gz")
    raw = tmp_path / "root/MNIST/raw"
    raw.mkdir(parents=True)
    for file in (Path(kept) / "MNIST/raw").glob("*.gz"):
        shutil.copyfile(file, raw / file.name)
    return tmp_path / "root"


def forget() -> None:
    """Stand in for a fresh process."""
    data_module._LOADED.clear()


def test_digits_are_what_scikit_learn_has(places: DataPaths) -> None:
    from sklearn.datasets import load_digits

    data = load(task(split=Split(validation=0.1, test=0.2)), places)
    bunch = load_digits()
    assert (data.num_outputs, data.num_classes, data.num_features, data.input_shape) == (10, 10, 64, (1, 8, 8))
    assert data.num_source_examples == 1797 == len(data.train) + len(data.validation) + len(data.test)
    for part in (data.train, data.validation, data.test):
        inputs, targets = part.batch(torch.arange(len(part)))
        rows = part.rows.numpy()
        assert np.array_equal(targets.numpy(), bunch.target[rows])
        mean = bunch.images[data.train.rows.numpy()].mean()
        std = bunch.images[data.train.rows.numpy()].std()
        expected = (bunch.images[rows] - mean) / std
        assert np.allclose(inputs[:, 0].numpy(), expected, atol=1e-5)
    assert data.class_counts.tolist() == np.bincount(bunch.target[data.train.rows.numpy()]).tolist()


def test_normalisation_is_of_the_training_part_alone(places: DataPaths) -> None:
    data = load(task(), places)
    inputs, _ = data.train.batch(torch.arange(len(data.train)))
    assert inputs.dtype == torch.float32
    assert abs(float(inputs.double().mean())) < 1e-5
    assert abs(float(inputs.double().std(correction=0)) - 1) < 1e-5


def test_batches_follow_their_index_and_may_be_changed(places: DataPaths) -> None:
    part = load(task(), places).train
    index = torch.tensor([5, 0, 5])
    inputs, targets = part.batch(index)
    assert torch.equal(inputs[0], inputs[2])
    assert torch.equal(targets, part.targets[index])
    inputs.zero_()
    assert not torch.equal(part.batch(index)[0], inputs)


def test_loading_twice_gives_the_same_object_and_the_same_fingerprint_elsewhere(
    places: DataPaths, tmp_path: Path
) -> None:
    first = load(task(), places)
    assert load(task(), places) is first
    elsewhere = load(task(), DataPaths(cache=str(tmp_path / "other")))
    assert elsewhere.fingerprint == first.fingerprint
    assert torch.equal(elsewhere.train.rows, first.train.rows)


def test_another_split_is_other_data(places: DataPaths) -> None:
    prints = {load(task(split=Split(seed=seed)), places).fingerprint for seed in (0, 1)}
    prints.add(load(task(split=Split(validation=0.2)), places).fingerprint)
    assert len(prints) == 3


def test_a_wrong_fingerprint_is_refused_with_both(places: DataPaths) -> None:
    right = load(task(), places).fingerprint
    with pytest.raises(DataError, match=f"{right[:16]}, and {'ab' * 8} were expected"):
        load(task(), places, fingerprint="ab" * 32)


def test_a_machine_without_the_data_makes_them_and_compares(places: DataPaths, tmp_path: Path) -> None:
    known = load(task(), places).fingerprint
    forget()
    other = DataPaths(cache=str(tmp_path / "other machine"))
    assert load(task(), other, fingerprint=known).fingerprint == known
    assert len(data_module.cached(other)) == 1


def test_a_kind_of_task_is_part_of_what_is_cached(places: DataPaths) -> None:
    """Digits as classes and as values are two data sets from one source."""
    classes, values = load(task(), places), load(task(metric="mse"), places)
    assert (classes.train.targets.dtype, values.train.targets.dtype) == (torch.int64, torch.float32)
    assert classes.fingerprint != values.fingerprint


def test_loading_leaves_the_random_state_alone(places: DataPaths) -> None:
    forget()
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002 (it is guarded)
    load(task(), places)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_absent_files_say_where_they_are_expected(places: DataPaths, name: str) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        load(task(name), places)
    root = places.torchvision_root()
    folder, archives, into = {
        "mnist": ("MNIST/raw", IDX, "/MNIST/raw"),
        "fashion_mnist": ("FashionMNIST/raw", IDX, "/FashionMNIST/raw"),
        "cifar10": ("cifar-10-batches-py", "cifar-10-python.tar.gz", ""),
        "cifar100": ("cifar-100-python", "cifar-100-python.tar.gz", ""),
    }[name]
    assert str(caught.value) == (
        f"files of {name} cannot be had in {root}/{folder}: they are not there, and downloads are switched off. "
        f"Allow the download, put {archives} (as published) into {root}{into}, or give --data-root the folder that "
        "holds them."
    )


def test_no_network_is_one_sentence(places: DataPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    for name, archives, into in (("mnist", IDX, "/MNIST/raw"), ("cifar10", "cifar-10-python.tar.gz", "")):
        with pytest.raises(DataNotFoundError) as caught:
            load(task(name), DataPaths(cache=places.cache, data_root=places.data_root))
        root = places.torchvision_root()
        folder = "MNIST/raw" if name == "mnist" else "cifar-10-batches-py"
        assert str(caught.value) == (
            f"files of {name} cannot be had in {root}/{folder}: <urlopen error no route to host>. "
            f"Connect to the network, put {archives} (as published) into {root}{into}, or give --data-root the folder "
            "that holds them."
        )
    assert socket.getdefaulttimeout() is None


def test_unpacked_files_suffice_and_damage_in_them_is_told(places: DataPaths) -> None:
    """Made-up idx files in torchvision's form: magic number, sizes, bytes."""
    raw = places.torchvision_root() / "MNIST/raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
    for part in ("train", "t10k"):
        head = b"".join(n.to_bytes(4, "big") for n in (0x803, 60, 4, 4))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = bytes(i % 10 for i in range(60))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + (60).to_bytes(4, "big") + labels)
    raw.chmod(0o555)
    data = load(task("mnist"), places)
    np.testing.assert_array_equal(data.train.inputs[:60, 0].numpy(), pixels)
    assert (len(data.train), len(data.test)) == (50, 60)
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-5])
    forget()
    with pytest.raises(DataError, match=r"^files of mnist in .*/MNIST/raw are damaged: .*\. Remove them and fetch"):
        load(task("mnist"), places)


def test_an_archive_that_is_not_the_published_one_is_left_alone(places: DataPaths, tmp_path: Path) -> None:
    raw = tmp_path / "root/MNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"not it"))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz is damaged: it is not the published file"):
        load(task("mnist"), DataPaths(cache=places.cache, data_root=places.data_root, download=True))
    assert gzip.decompress((raw / "train-images-idx3-ubyte.gz").read_bytes()) == b"not it"


def test_mnist_is_read_from_verified_archives_without_touching_their_folder(
    mnist_root: Path, places: DataPaths
) -> None:
    before = sorted(p.name for p in (mnist_root / "MNIST/raw").iterdir())
    data = load(task("mnist"), places)
    assert sorted(p.name for p in (mnist_root / "MNIST/raw").iterdir()) == before
    assert not list((Path(places.cache_folder) / "data").glob("*.unpacked"))
    assert (len(data.train), len(data.validation), len(data.test)) == (54000, 6000, 10000)
    assert data.input_shape == (1, 28, 28)
    assert data.train.inputs.dtype == torch.uint8
    inputs, _ = data.train.batch(torch.arange(2000))
    # Published for all 60,000: mean 0.1307, deviation 0.3081 of 255. So black is at -0.4242 and white at 2.8215.
    assert abs(float(inputs.min()) + 0.4242) < 3e-3
    assert abs(float(inputs.max()) - 2.8215) < 1e-2
    _, labels = data.test.batch(torch.arange(10))
    assert labels.tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # of the official test file


def test_cifar_is_read_from_its_archive(places: DataPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published layout with 20 random images a file, and their hashes in the place of the published ones."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    pixels = {name: rng.integers(0, 256, (20, 3072), dtype=np.uint8) for name in names}
    files = {name: {"data": pixels[name], "labels": [i % 10 for i in range(20)]} for name in names}
    files["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    contents = {name: pickle.dumps(value) for name, value in files.items()}
    archive = tmp_path / "root/cifar-10-python.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "train_list", [[name, hashes[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", hashes["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashes["batches.meta"]})

    data = load(task("cifar10"), places)
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["cifar-10-python.tar.gz"]
    assert (data.input_shape, data.num_source_examples, len(data.test)) == ((3, 32, 32), 100, 20)
    assert data.class_names[3] == "class 3"
    whole = np.concatenate([pixels[name] for name in names[:5]]).reshape(100, 3, 32, 32).astype(np.float64)
    train = whole[data.train.rows.numpy()]
    expected = (train - train.mean((0, 2, 3), keepdims=True)) / train.std((0, 2, 3), keepdims=True)
    inputs, _ = data.train.batch(torch.arange(len(data.train)))
    assert np.allclose(inputs.numpy(), expected, atol=1e-5)


def test_a_worker_with_the_fingerprint_does_not_look_at_the_source(mnist_root: Path, places: DataPaths) -> None:
    known = load(task("mnist"), places).fingerprint
    shutil.rmtree(mnist_root)
    forget()
    assert load(task("mnist"), places, fingerprint=known).fingerprint == known
    forget()
    with pytest.raises(DataNotFoundError):
        load(task("mnist"), DataPaths(cache=f"{places.cache}2", data_root=places.data_root, download=False))


def test_mnist_with_a_test_share_is_refused(mnist_root: Path, places: DataPaths) -> None:
    with pytest.raises(DataError, match=r"split\.test must be null"):
        load(task("mnist", split=Split(test=0.2)), places)
