"""A trained model in hand: what it predicts for rows as the user has them, and how it is kept.

Needs torch, NumPy and pyarrow alone.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import subsettune
from subsettune import config, models
from subsettune.config import FrozenDict, setting
from subsettune.data import DataPaths, load
from subsettune.data.raw import Array
from subsettune.errors import ConfigError, DataError, ModelError
from subsettune.policy import Policy
from subsettune.storage import Folder
from subsettune.task import Task
from subsettune.train.learner import predict
from subsettune.train.metrics import metric
from subsettune.train.objective import positive_class
from subsettune.train.planning.check import user_code_of
from subsettune.train.pruning.surgery import fit_shapes
from subsettune.train.randomness import generator, isolated, preserved
from subsettune.train.result import RunResult
from subsettune.trained import folder as files
from subsettune.trained import safetensors
from subsettune.trained.encoding import Encoding
from subsettune.trained.rows import Rows, rows_of

Place = str | Path | Folder
PROBES = 2  # made-up examples that a network is tried on when it is loaded
SAME = 1e-3  # of the outputs' size, that other machines and versions of torch may differ by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What a model says of rows.

    Args:
        values: (n,) classes as the user calls them, (n, m) 0 and 1 of labels, or (n,) or (n, m) values.
        probabilities: (n, classes), in the order of the model's classes; (n, m) of labels; None of a regression.
        metric: the task's metric, where the rows have labels; else None.
        warnings: sentences about what training had not seen.
        names: of the rows, where they are pictures that are files; else empty.
    """

    values: Array
    probabilities: Array | None
    metric: float | None
    warnings: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a model comes from.

    Args:
        task: it was trained for.
        policy: by which.
        seed: of the run.
        metrics: of the final weights, by split.
        fingerprint: of the data that it was trained on.
        device: that it was trained on.
        code: hashes of the user's own code that it was built from, by name.
        versions: of the packages.
    """

    task: Task
    policy: Policy
    seed: int
    metrics: FrozenDict = setting(FrozenDict())
    fingerprint: str = ""
    device: str = "cpu"
    code: FrozenDict = setting(FrozenDict())
    versions: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """A trained network with all that stands between it and the user's rows.

    Args:
        network: in evaluation mode, on the CPU.
        encoding: how rows become its input, and its output the user's words.
        origin: where it comes from.
    """

    network: nn.Module
    encoding: Encoding
    origin: Origin

    def __repr__(self) -> str:
        about, outputs = self.origin, self.encoding.outputs
        others = "labels" if outputs.kind == "multilabel" else "values"
        what = f"{len(self.classes)} classes" if self.classes else f"{outputs.num_outputs} {others}"
        scores = ", ".join(f"{split} {value:.4g}" for split, value in about.metrics.items())
        return f"TrainedModel({about.task.model.name}, {what} of {outputs.label!r}, {about.task.metric}: {scores})"

    @classmethod
    def of(cls, result: RunResult, task: Task, places: DataPaths | None = None) -> TrainedModel:
        """The model of a run that kept it: `train.run(task, policy, seed, final=True)`.

        Args:
            result: of the run.
            task: that was trained.
            places: where this machine keeps data; as in the run's options.

        Raises:
            ConfigError: the run kept no model, or did not finish.
            ModelError: a function of the user's own trained it.
            DataError: the data have changed since, or are read in a way that cannot be told again.
        """
        if result.model is None or result.cause != "finished":
            got = "no model" if result.model is None else f"one that {result.cause}"
            advice = "Train with train.run(task, policy, seed, final=True)."
            raise ConfigError(config.must("result", "a finished run that kept its model", got, advice))
        if task.train is not None:
            raise ModelError(
                f"a model of task.train cannot be asked about rows: what they mean {task.train} knows alone. Take "
                "result.model, which it gave run.finish."
            )
        with preserved():
            data = load(task, places or DataPaths())
            if result.fingerprint != data.fingerprint:
                raise DataError(
                    "the data are not those that the run was trained on: another task, or they have changed since. "
                    "Give the task of the run, or train again."
                )
            encoding = Encoding.of(task, data, places)
        network: nn.Module = result.model
        network.eval()
        origin = Origin(
            task=task,
            policy=result.policy,
            seed=result.seed,
            metrics=result.metrics,
            fingerprint=data.fingerprint,
            device=result.device,
            code=FrozenDict(user_code_of(task)),
            versions=FrozenDict(_versions()),
        )
        return cls(network=network, encoding=encoding, origin=origin)

    # --- what it says -----------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities; empty of a regression."""
        return self.encoding.outputs.classes

    def predict(self, rows: Any) -> Array:
        """(n,) classes as the user calls them, (n, m) 0 and 1 of labels, or (n,) or (n, m) values in their units.

        Args:
            rows: a DataFrame, an Arrow table, a dict of columns, or arrays; as the model was trained on. A column of
                labels, and columns that the model does not know, are not looked at.

        Warns:
            UserWarning: a category or a text that training had not seen.

        Raises:
            DataError: a column is missing, of another type, or holds what cannot be read.
        """
        return self._told(rows).values

    def predict_proba(self, rows: Any) -> Array:
        """(n, classes) float64 probabilities, in the order of `classes`; (n, m) of labels; arguments as of `predict`.

        Raises:
            DataError: as `predict`, or it is a regression, which has none.
        """
        found = self._told(rows).probabilities
        if found is None:
            raise DataError("probabilities are those of classes, and this model predicts values. Use predict.")
        return found

    def _told(self, rows: Any) -> Predictions:
        found = self.examine(rows, with_metric=False)
        for sentence in found.warnings:
            warnings.warn(sentence, UserWarning, stacklevel=3)
        return found

    def score(self, rows: Any, labels: Any = None) -> float:
        """The task's metric over rows with labels.

        Args:
            rows: as of `predict`.
            labels: of the rows; default: their column of labels.

        Raises:
            DataError: there are no labels, or the model does not know one of them.
        """
        found = self.examine(rows, labels=labels).metric
        if found is None:
            name = self.encoding.outputs.label
            raise DataError(f"rows must have labels to be scored, got none. Give a column {name!r}, or labels apart.")
        return found

    def examine(self, rows: Any, *, labels: Any = None, with_metric: bool = True) -> Predictions:
        """Predictions with probabilities, the metric where there are labels, and what training had not seen."""
        found = rows_of(rows, self.encoding.wanted)
        part, said = self.encoding.part(found)
        low = self.origin.task.recipe.override(self.origin.policy.recipe).precision == "bfloat16"
        with preserved():
            raw, _ = predict(self.network, part, low_precision=low)
        told = self.encoding.outputs
        outputs = told.in_units(raw)
        if not bool(torch.isfinite(outputs).all()):
            row = int(torch.isfinite(outputs.reshape(len(outputs), -1)).all(dim=1).int().argmin())
            raise DataError(f"the model gives no finite number for {found.place(row)}. Look at its values.")
        given = told.labels_in(found) if labels is None else labels
        score = None
        if with_metric and given is not None:
            task, targets = self.origin.task, told.targets(given, found)
            score = metric(task.metric, outputs, targets, told.num_outputs, positive_class(task, told.classes))
        shares = None if told.kind == "regression" else told.probabilities(raw)
        return Predictions(
            values=told.words(outputs),
            probabilities=shares,
            metric=score,
            warnings=said,
            names=found.names_of_rows,
        )

    def read(self, path: str) -> Rows:
        """Rows of a file, of the columns that the model looks for.

        Raises:
            DataNotFoundError: it is not there.
            DataError: it is damaged, or of another kind.
        """
        return self.encoding.read(path)

    # --- how it is kept ---------------------------------------------------------------------------------------------

    def save(self, target: Place) -> None:
        """Write the folder, whole or not at all; a model that lies there is replaced.

        Raises:
            ModelError: the folder holds something else, or the network's state holds what are no tensors.
            StorageError: it cannot be written.
        """
        about = {name: config.to_plain(getattr(self.origin, name)) for name in Origin.__dataclass_fields__}
        probe = _probe(self.network, self.encoding)
        about["probe"] = None if probe is None else probe.tolist()
        contents = {
            files.ENCODERS: files.to_json(config.to_plain(self.encoding)),
            files.WEIGHTS: safetensors.dump(self.network.state_dict()),
        }
        files.write(_folder(target), about, contents)


def load_model(source: Place) -> TrainedModel:
    """Read a model that `subsettune train --save DIR` or `TrainedModel.save` wrote, and check all of it.

    Args:
        source: the folder, or a URI of one.

    Raises:
        ModelError: it is no saved model, damaged, of another version, or its code gives other outputs now.
        ConfigError: the user's own network cannot be imported here.
    """
    folder = _folder(source)
    about, encoders, raw = files.read(folder)
    probe = about.pop("probe", "missing")
    try:
        origin = config.build(Origin, about)
        encoding = config.build(Encoding, encoders)
    except ConfigError as error:
        raise files.damaged(folder, f"{files.MODEL} or {files.ENCODERS}", error) from error
    network = _network(origin, encoding, safetensors.parse(raw, f"{folder}: {files.WEIGHTS}"), folder)
    _refuse_another(network, encoding, origin, probe, folder)
    return TrainedModel(network=network, encoding=encoding, origin=origin)


def check_can_be_saved(task: Task, data: Any, target: Place, places: DataPaths | None = None) -> None:
    """Refuse before a training what could not be kept after it.

    Args:
        task: that will be trained.
        data: of it, loaded from their source.
        target: the folder.
        places: where this machine keeps data.

    Raises:
        ModelError: the folder holds something else, or the network's state is not of tensors alone.
        DataError: the data are read in a way that cannot be told again.
    """
    files.refuse_foreign(_folder(target))
    if task.train is not None:
        raise ModelError(
            f"--save must be a file with task.train, got a folder. What rows mean to {task.train} it knows alone: "
            "write weights.pt for the weights that it gives run.finish."
        )
    encoding = Encoding.of(task, data, places)
    with isolated(0, torch.get_num_threads()):
        network = _built(task, encoding)
        safetensors.dump(network.state_dict())
        _probe(network, encoding)


def _network(origin: Origin, encoding: Encoding, weights: Mapping[str, Tensor], folder: Folder) -> nn.Module:
    """The network with its weights, narrowed first where it was pruned."""
    with isolated(0, torch.get_num_threads()):
        try:
            network = _built(origin.task, encoding)
        except ConfigError as error:
            raise ConfigError(f"{folder}: {error}") from error
        fit_shapes(network, weights)
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            reason = " ".join(str(error).split("\n\t")[-1].split()).rstrip(".")
            name = origin.task.model.name
            raise ModelError(
                f"{folder}: the weights do not fit model {name!r} as it is built here: {reason}. Restore the code and "
                "versions that it was saved with."
            ) from error
    return network.eval()


def _built(task: Task, encoding: Encoding) -> nn.Module:
    num_tokens = int(getattr(encoding.inputs, "num_tokens", 0) or getattr(encoding.inputs, "num_ids", 0))
    return models.make(task.model, encoding.inputs.shape, encoding.outputs.num_outputs, num_tokens)


def _probe(network: nn.Module, encoding: Encoding) -> Tensor | None:
    """Outputs (PROBES, M) of made-up inputs, by which code that has changed shows; the mode comes back as it was.

    None of a user's own network that takes no such inputs: then only its code tells whether it is the same.
    """
    shape, rng = (PROBES, *encoding.inputs.shape), generator(0, "probe")
    num_ids = int(getattr(encoding.inputs, "num_tokens", 0) or getattr(encoding.inputs, "num_ids", 0))
    inputs = torch.randint(1, max(2, num_ids), shape, generator=rng) if num_ids else torch.randn(shape, generator=rng)
    was_training = network.training
    network.eval()
    try:
        with isolated(0, torch.get_num_threads()), torch.no_grad():
            outputs = network(inputs.clamp(max=num_ids - 1) if num_ids else inputs)
            found: Tensor = outputs.float().reshape(PROBES, -1).nan_to_num()
            return found
    except Exception:  # whatever a user's network does with numbers that are none of its data's
        return None
    finally:
        network.train(was_training)


def _refuse_another(network: nn.Module, encoding: Encoding, origin: Origin, probe: Any, folder: Folder) -> None:
    """Refuse a network that gives other outputs than when it was saved."""
    now = _probe(network, encoding)
    try:
        then = None if probe is None else torch.tensor(probe, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise files.damaged(folder, files.MODEL, "it has no probe") from error
    if then is None or now is None:
        is_same = then is now and dict(origin.code) == user_code_of(origin.task)
    else:
        is_same = now.shape == then.shape and bool(((now - then).abs() <= SAME * (1 + then.abs().max())).all())
    if is_same:
        return
    was = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    own = f"the code of {', '.join(map(repr, origin.code))}" if origin.code else "the versions of subsettune and torch"
    raise ModelError(
        f"{folder}: model {origin.task.model.name!r} gives other outputs here than when it was saved ({was}). Restore "
        f"{own}, or train again."
    )


def _versions() -> dict[str, str]:
    packages = {name: metadata.version(name) for name in ("torch", "numpy", "pyarrow")}
    return {"subsettune": subsettune.__version__, "python": platform.python_version(), **packages}


def _folder(place: Place) -> Folder:
    return place if isinstance(place, Folder) else Folder.at(place)
