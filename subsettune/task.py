"""Tasks: what is trained (data, model, recipe), how it is judged (metric), and what counts as matched (tolerance).

Frozen values without torch; `subsettune.data.load` and `subsettune.models.make` turn them into tensors and networks.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config, in_memory
from subsettune.config import (
    AT_LEAST_ONE,
    NOT_NEGATIVE,
    OPEN_FRACTION,
    POSITIVE,
    UNIT,
    FrozenDict,
    Rule,
    setting,
)
from subsettune.errors import ConfigError, Mistake
from subsettune.goal import (
    KIND_RULE,
    LOSS_RULE,
    METRIC_RULE,
    WEIGHTS_RULE,
    OwnMetric,
    judged,
    loss_mistakes,
    metric_mistakes,
    metric_parts,
    positive_mistakes,
    usual_kind,
)
from subsettune.registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULES, Metric

MOMENTUM_OPTIMIZERS = ("sgd",)
FILES = (".parquet", ".npz", ".tsv", ".tsv.gz", ".csv", ".csv.gz")
SPLIT_COLUMNS = ("by", "column", "time")
TEXT_KEYS = ("text", "tokens", "max_tokens", "vocabulary")  # mean something to texts alone
OPTIMIZER_KEYS = ("momentum", "nesterov", "optimizer_options")  # mean something to one optimizer, nothing to another


def _named(key: str, name_of: Callable[[Any], str], value: Any) -> Any:
    """What names an object of Python's in a file; texts, and what is none, stay as they are."""
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        return name_of(value)
    except ConfigError as error:
        raise ConfigError(tuple(Mistake((key,), m.message) for m in error.mistakes)) from error


def _code_name(code: Any) -> Any:
    return _named("name", lambda value: in_memory.code_name(value, "model"), code)


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _is_source(name: str) -> bool:
    return name in DATASETS or ":" in name or "/" in name or name.endswith(FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Csv:
    """How .csv files are written, where that is not to be found out.

    Args:
        separator: one sign between fields; default: what of `,` `;` tab and `|` the first lines have.
        decimal: the mark before decimals; default: what the numbers have.
        encoding: of the texts; default: UTF-8, or UTF-16 where the file begins as one.
    """

    separator: str | None = setting(
        None, rule=Rule("one sign that is no quotation mark", lambda v: len(v) == 1 and v not in '"\r\n')
    )
    decimal: Literal[".", ","] | None = None
    encoding: str | None = setting(None, rule=Rule("an encoding of Python's, as latin-1", _is_encoding))

    def __post_init__(self) -> None:
        config.check(self)
        if self.separator is not None and self.separator == self.decimal:
            message = config.must("separator", f"another sign than decimal {self.decimal!r}", self.separator)
            raise ConfigError((Mistake(("separator",), message),))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form: what was given."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the examples come from.

    Args:
        source: a data set by name, a path of a Parquet, .csv or .tsv file (gzipped or not) or of a folder of them, of
            a folder with a folder of pictures for each class, or of an .npz file, or `package.module:function` that
            returns a map-style torch Dataset (or a pair of them: training, test). In Python also a table (pandas,
            polars, Arrow), a pair (X, y) of arrays, a Dataset, or a function itself.
        label: column of the label (Parquet, .csv) or name of the array (.npz). Classes go by their names: where files
            list them in another order, by those of each file; without the space around them. In .tsv files labels are
            numbers where all are decimal ones without leading zeros, else names. The classes -1 and 1 are two.
        features: columns or arrays that make up the input; default: `image` or `text` if there is one, else all other
            columns, but for the index that pandas writes and for an exact second copy of the label: these are not read,
            and `plan` says so. Columns of numbers are standardised, those of texts are categories and become one-hot,
            both as the training part has them. Numbers keep what varies in them, whatever their size: times, ids,
            offsets.
        options: keyword arguments of the function.
        categorical: columns of whole numbers, booleans or texts (Parquet) that are categories; texts always are.
        embeddings: column of lists (Parquet) or name of the array (.npz) that holds a vector for each example; it is
            for selectors to measure on, and no part of the input.
        text: column of texts (Parquet, .tsv) that are the input, each as a row of token ids.
        tokens: what a text is cut into: `words`, in lower case, cut at whitespace and around each punctuation mark; or
            `bytes` of UTF-8.
        max_tokens: longest text; longer ones are cut, and all are shorter where the training part's are.
        vocabulary: words that are told apart, the most frequent of the training part; others are one unknown word.
        layout: what an example is, of arrays, lists and functions: `image` (height, width), (channels, height, width)
            or (height, width, channels); `series` (time,) or (channels, time); `tokens`, a row of whole numbers that a
            network embeds, 0 the padding of those that know one; `flat`, numbers that stand for themselves. Images and
            series are standardised by channel, flat numbers each, tokens not. Default: two and three dimensions are an
            image, all else is flat; the plan of a study says what that made of an example.
        exclude: columns (Parquet, .csv) that are no features, where all others are.
        impute: `median` fills missing numbers of columns by the median of the training part, and adds a column that
            says where one was missing. Default: missing numbers are refused.
        dates: what columns of dates and times become: `number`, seconds since 1970, or `cyclic`, beside it sine and
            cosine of the hour, the weekday and the month.
        date_formats: how columns of texts write their dates, as `{born: "%d.%m.%Y"}`, in the signs of Python's
            `strptime`, or `ISO` for all forms of ISO 8601.
        resize: height and width that all pictures get, or one number for both.
        color: what all pictures become, `rgb` or `grey`; needed where some are grey and some are not.
        csv: how .csv files are written, where that is not to be found out.

    Only `options` and `layout` mean anything to functions, and only `source` to named data sets.
    """

    source: str = setting(
        rule=Rule(
            "a data set, a path of a .parquet, .csv, .tsv or .npz file or a folder, or package.module:function",
            _is_source,
            lambda: (
                f"Known data sets: {', '.join(DATASETS)}. A folder in the working folder is written with a slash, as "
                "./photos."
            ),
            lambda: DATASETS,
        )
    )
    label: str = "label"
    features: tuple[str, ...] | None = None
    options: FrozenDict = setting(FrozenDict())
    categorical: tuple[str, ...] = ()
    embeddings: str | None = None
    text: str | None = None
    tokens: Literal["words", "bytes"] = "words"
    max_tokens: int = setting(64, rule=AT_LEAST_ONE)
    vocabulary: int = setting(20_000, rule=AT_LEAST_ONE)
    layout: Literal["image", "series", "tokens", "flat"] | None = None
    exclude: tuple[str, ...] = ()
    impute: Literal["median"] | None = None
    dates: Literal["number", "cyclic"] = "number"
    date_formats: FrozenDict = setting(FrozenDict())
    resize: int | tuple[int, ...] | None = None
    color: Literal["rgb", "grey"] | None = None
    csv: Csv = setting(Csv())

    @classmethod
    def from_object(cls, raw: Any) -> Any:
        """Data that are handed over in Python, as a mapping; texts and nothing stay as they are, to be refused."""
        return raw if raw is None or isinstance(raw, str | int | float) else {"source": raw}

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give what is handed over in Python its name."""
        return {**raw, "source": _named("source", in_memory.source_name, raw["source"])} if "source" in raw else raw

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", _named("source", in_memory.source_name, self.source))
        config.check(self)
        self._check_new()
        mistakes = []
        if self.text is not None:
            mistakes = [
                Mistake((key,), f"{key} must be left out beside text, which is the input. Remove one of them.")
                for key in ("features", "categorical")
                if getattr(self, key)
            ]
            if self.text in (self.label, self.embeddings):
                message = config.must("text", "a column of its own", self.text, "Name another for it, or for the rest.")
                mistakes.append(Mistake(("text",), message))
        if self.layout is not None and (self.text is not None or self.categorical):
            other = "categorical" if self.text is None else "text"
            message = f"layout must be left out beside {other}, which says what an example is. Remove one of them."
            mistakes.append(Mistake(("layout",), message))
        mistakes += [Mistake(("exclude",), message) for message in self._wrongly_excluded()]
        if self.features is not None and len(set(self.features)) != max(1, len(self.features)):
            message = config.must("features", "different columns, one at least", list(self.features), "Mend the list.")
            mistakes.append(Mistake(("features",), message))
        if self.tokens == "bytes" and "vocabulary" in self.text_keys:
            message = "vocabulary means nothing to tokens: bytes, of which there are 256. Remove the key."
            mistakes.append(Mistake(("vocabulary",), message))
        if mistakes:
            raise ConfigError(tuple(mistakes))

    def _check_new(self) -> None:
        """Formats must be texts, and a size two numbers."""
        for name, form in self.date_formats.items():
            if not isinstance(form, str) or ("%" not in form and form != "ISO"):
                message = config.must(name, "a format of dates, as '%d.%m.%Y', or ISO", form, "See Python's strptime.")
                raise ConfigError((Mistake(("date_formats", name), message),))
        size = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if size is not None and (len(size) != 2 or min(size) < 1):
            message = config.must("resize", "a size in pixels, or [height, width]", self.resize, "Write [64, 64].")
            raise ConfigError((Mistake(("resize",), message),))
        object.__setattr__(self, "resize", size)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that pictures get; None where they keep their own."""
        return None if self.resize is None else (self.resize[0], self.resize[1])  # type: ignore[index]

    def _wrongly_excluded(self) -> list[str]:
        """A sentence for each column that is left out and has a part to play."""
        if self.exclude and self.features is not None:
            return ["exclude must be left out beside features, which names all inputs. Remove one of them."]
        used = {
            "label": (self.label,),
            "embeddings": (self.embeddings,),
            "text": (self.text,),
            "categorical": self.categorical,
        }
        return [
            config.must("exclude", f"other columns than {key}", name, "Remove it from one of them.")
            for name in self.exclude
            for key, names in used.items()
            if name in names
        ]

    @property
    def text_keys(self) -> tuple[str, ...]:
        """The keys that say how texts are read, as far as they were given another value than the default."""
        defaults = {name: Data.__dataclass_fields__[name].default for name in TEXT_KEYS}
        return tuple(name for name in TEXT_KEYS if getattr(self, name) != defaults[name])

    @property
    def given(self) -> tuple[str, ...]:
        """The keys on missing numbers, dates, sizes and .csv files that have another value than the default."""
        usual: dict[str, Any] = {
            "impute": None,
            "dates": "number",
            "date_formats": {},
            "resize": None,
            "color": None,
            "csv": Csv(),
        }
        return tuple(name for name, value in usual.items() if getattr(self, name) != value)

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        new = ("categorical", "embeddings", "layout", "exclude", *self.given)
        names = [*(name for name in new if getattr(self, name)), *self.text_keys]
        given = {name: getattr(self, name) for name in names}
        always = {name: getattr(self, name) for name in ("source", "label", "features", "options")}
        return {name: config.to_plain(value) for name, value in {**always, **given}.items()}


NO_DATA = Data(source="none:none")  # of a task whose function reads its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which examples are held out. Drawn once, by class, from `seed`; every run of the task has the same split.

    Args:
        validation: share of the training file that the search is judged on.
        test: share of the training file that verification is judged on; null where an official test file exists.
        seed: of the draw.
        by: column of groups, such as patients: all rows of a group come into one part.
        column: column that names the part of each row, `train`, `validation` or `test`; parts that it does not name
            are drawn from the training rows.
        time: column of dates or numbers: the latest rows are the test part, those before the validation part.

    The columns of `by`, `column` and `time` are no inputs unless `data.features` names them.
    """

    validation: float = setting(0.1, rule=OPEN_FRACTION)
    test: float | None = setting(None, rule=OPEN_FRACTION)
    seed: int = setting(0, rule=NOT_NEGATIVE)
    by: str | None = None
    column: str | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        config.check(self)
        if self.validation + (self.test or 0.0) >= 1:
            raise ConfigError("validation + test must be below 1. Leave some examples to train on.")
        given = [name for name in SPLIT_COLUMNS if getattr(self, name) is not None]
        if len(given) > 1:
            message = f"{given[1]} must be left out beside {given[0]}: a split goes by one column. Remove one of them."
            raise ConfigError((Mistake((given[1],), message),))

    @property
    def reads(self) -> str | None:
        """The column that the split goes by; None where it is drawn, or comes from files."""
        return self.by or self.column or self.time

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. A column stands in it where it is given: what does nothing changes no key."""
        always = {"validation": self.validation, "test": self.test, "seed": self.seed}
        return {**always, **{name: getattr(self, name) for name in SPLIT_COLUMNS if getattr(self, name) is not None}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """Faults put into the training part on purpose, for experiments: labels are flipped, then examples are repeated.

    Validation and test part stay clean. One seed gives one distortion; where a share grows, the examples that were
    distorted before still are.

    Args:
        flip_labels: share of the training examples, rounded to whole ones, whose class is replaced by another one,
            each of the others equally likely; classification only.
        repeat_share: share of the training examples, rounded likewise, that stand in the training part several times.
        repeat_times: how often each of them stands there; copies share a label, flipped or not.
        seed: of the draws.
    """

    flip_labels: float = setting(0.0, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    repeat_share: float = setting(0.0, rule=UNIT)
    repeat_times: int = setting(2, rule=AT_LEAST_ONE)
    seed: int = setting(0, rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)

    @property
    def is_off(self) -> bool:
        """Whether the training part stays as it is."""
        return self.flip_labels == 0 and self.most_copies == 1

    @property
    def most_copies(self) -> int:
        """How often an example may stand in the training part."""
        return self.repeat_times if self.repeat_share else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A network by name, with its options: `{name: mlp, hidden: [64]}`."""

    name: str = setting(rule=MODELS.rule)
    options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _code_name(self.name))
        config.check(self)

    @classmethod
    def from_object(cls, raw: Any) -> Any:
        """A function or class of Python's as a mapping; what is no code stays as it is, to be refused."""
        return {"name": raw} if callable(raw) else raw

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Gather every key but the name into `options`; a function or class gets its name."""
        options = {key: value for key, value in raw.items() if key not in ("name", "options")}
        folded: dict[str, Any] = {"options": {**raw.get("options", {}), **options}}
        return {**folded, "name": _code_name(raw["name"])} if "name" in raw else folded

    def to_mapping(self) -> dict[str, Any]:
        """Flat form, as in YAML."""
        return {"name": self.name, **config.to_plain(self.options)}


NO_MODEL = Model(name="none:none")  # of a task whose function builds its own


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleFlops:
    """What one example costs a network, as somebody knows who trains it with code of their own.

    Args:
        forward: FLOPs of its forward pass; a multiplication and an addition are 2.
        backward: FLOPs of its backward pass; about twice as many.
    """

    forward: int = setting(rule=AT_LEAST_ONE)
    backward: int = setting(rule=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        config.check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Random changes of training inputs, made on the device; 0 and false are off. They happen in this order.

    Args:
        flip: mirror left-right with probability 1/2.
        crop_padding: pad by so many pixels on each side with zeros, then crop to the old size at a random place.
        torchvision: transforms of torchvision by name, each a mapping of `name` and its options, image by image; those
            that move pixels or leave some out, since images are standardised before.
        function: `package.module:function` of the user's own, of (b, ...) inputs as networks get them and `rng`, a
            generator on their device; gives inputs of that shape.
        options: further keyword arguments of the function.
    """

    flip: bool = False
    crop_padding: int = setting(0, rule=NOT_NEGATIVE)
    torchvision: tuple[FrozenDict, ...] = ()
    function: str | None = setting(None, rule=Rule("package.module:function", lambda name: ":" in name))
    options: FrozenDict = setting(FrozenDict())

    def __post_init__(self) -> None:
        config.check(self)
        nameless = next((one for one in self.torchvision if not isinstance(one.get("name"), str)), None)
        if nameless is not None:
            message = config.must("torchvision", "transforms, each with a name", nameless, "Write {name: ..., ...}.")
            raise ConfigError((Mistake(("torchvision",), message),))
        if self.options and self.function is None:
            raise ConfigError((Mistake(("options",), "options are those of function, and there is none. Name it."),))

    @property
    def is_off(self) -> bool:
        """Whether inputs stay as they are."""
        return not (self.flip or self.crop_padding or self.torchvision or self.function)

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        new = ("torchvision", "function", "options")
        names = [name for name in Augment.__dataclass_fields__ if name not in new or getattr(self, name)]
        return {name: config.to_plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The conventional training. A policy may override any key but `epochs`, which its budget replaces.

    Args:
        optimizer: sgd, adam, adamw, adadelta, lbfgs (full batches only), or `package.module:name` of a class or
            function, called as `subsettune.train.optimizers.make` says.
        lr: peak learning rate.
        batch_size: examples per update.
        epochs: passes over the training examples.
        schedule: shape of the learning rate over the share of compute used.
        schedule_options: see `subsettune.train.schedule`.
        momentum: of sgd; null is 0.
        nesterov: of sgd.
        weight_decay: as the optimizer defines it.
        optimizer_options: further keyword arguments of the optimizer, e.g. `{betas: [0.9, 0.95]}`.
        grad_clip: largest norm of the gradient, null for none.
        label_smoothing: of the cross-entropy loss.
        augment: random changes of training images.
        precision: `float32`, `bfloat16` (by autocast), or `auto`: bfloat16 where the device is a GPU.
        class_weights: factors of the losses by class: `balanced`, as rare as a class is in the training part, or a list
            of a number each in the order of the classes; their mean over the training part is made 1.
        own: hyperparameters of a training function of the user's own (`task.train`), with their usual values; a space
            searches them as `own.NAME`, and the function finds them as `run.recipe.own["NAME"]`.
        ema: decay of a moving average of the weights, which then is what is measured and kept; null for none.
    """

    optimizer: str = setting("sgd", rule=OPTIMIZERS.rule)
    lr: float = setting(rule=POSITIVE)
    batch_size: int = setting(rule=AT_LEAST_ONE)
    epochs: float = setting(rule=POSITIVE)
    schedule: str = setting("cosine", rule=SCHEDULES.rule)
    schedule_options: FrozenDict = setting(FrozenDict())
    momentum: float | None = setting(None, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    nesterov: bool = False
    weight_decay: float = setting(0.0, rule=NOT_NEGATIVE)
    optimizer_options: FrozenDict = setting(FrozenDict())
    grad_clip: float | None = setting(None, rule=POSITIVE)
    label_smoothing: float = setting(0.0, rule=Rule("in [0, 1)", lambda v: 0 <= v < 1))
    augment: Augment = setting(Augment())
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    class_weights: tuple[float, ...] | str | None = setting(None, rule=WEIGHTS_RULE)
    own: FrozenDict = setting(FrozenDict())
    ema: float | None = setting(None, rule=Rule("in (0, 1)", lambda v: 0 < v < 1, "Usual are 0.99 to 0.9999."))

    def __post_init__(self) -> None:
        config.check(self)
        if self.optimizer not in MOMENTUM_OPTIMIZERS and ":" not in self.optimizer:
            given = [key for key in ("momentum", "nesterov") if getattr(self, key)]
            if given:
                message = f"means nothing to {self.optimizer}. Leave it out, or use optimizer_options."
                raise ConfigError(tuple(Mistake((key,), f"{key} {message}") for key in given))
        if self.optimizer == "lbfgs":
            self._check_lbfgs()
        if self.nesterov and not self.momentum and self.optimizer in MOMENTUM_OPTIMIZERS:
            raise ConfigError((Mistake(("nesterov",), "nesterov needs momentum. Set momentum, e.g. 0.9."),))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        new = {"class_weights": None, "ema": None, "own": FrozenDict()}
        names = [name for name in Recipe.__dataclass_fields__ if name not in new or getattr(self, name) != new[name]]
        return {name: config.to_plain(getattr(self, name)) for name in names}

    def _check_lbfgs(self) -> None:
        """Refuse what would change the loss or the gradient behind the back of its line search."""
        given = {"grad_clip": self.grad_clip is not None, "weight_decay": self.weight_decay > 0}
        advice = {"grad_clip": "null", "weight_decay": "0"}
        message = "{} does not fit lbfgs, which searches along the gradient of the loss itself. Write {}."
        mistakes = [Mistake((key,), message.format(key, advice[key])) for key in given if given[key]]
        if mistakes:
            raise ConfigError(tuple(mistakes))

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with some keys replaced; mappings replace whole, but for `own`, whose keys are replaced each.

        A new optimizer drops the settings that only the old one understood (momentum, nesterov, optimizer_options).

        Raises:
            ConfigError: an unknown key, `epochs`, or a value out of range.
        """
        if "epochs" in changes:
            raise ConfigError(
                (Mistake(("epochs",), "epochs cannot be overridden: the budget of a policy replaces it."),)
            )
        plain: dict[str, Any] = {name: getattr(self, name) for name in Recipe.__dataclass_fields__}
        if changes.get("optimizer", self.optimizer) != self.optimizer:
            for key in OPTIMIZER_KEYS:
                del plain[key]
        changes = {**changes, "own": {**self.own, **changes["own"]}} if "own" in changes else changes
        return config.build(Recipe, {**plain, **changes})


# The budget decides on epochs; the others are mappings and lists.
UNSEARCHABLE = ("epochs", "augment", "optimizer_options", "schedule_options", "class_weights", "own")
RECIPE_KEYS = tuple(name for name in Recipe.__dataclass_fields__ if name not in UNSEARCHABLE)


TOLD = "told:"  # before the name of a metric that a training function tells and nobody here knows
OWN_KEYS = (
    *("train", "train_options", "examples", "validation_examples", "test_examples"),
    *("flops_per_example", "outputs", "parameters", "version"),
)
_FUNCTION = re.compile(r"[\w.]+:[\w.]+")  # else it is a command line
_TRAIN = Rule(
    "package.module:function, or a command line such as python train.py",
    lambda name: _FUNCTION.fullmatch(name) is not None or len(name.split()) > 1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, and what counts as matched.

    Args:
        data: where the examples come from. Beside `train` it may be left out, and is for selectors alone: one row for
            each training example, in the order of their numbers.
        split: which examples are held out.
        model: the network.
        recipe: the conventional training.
        metric: of a classification accuracy, balanced_accuracy, macro_f1, top5, roc_auc, average_precision or log_loss;
            of a regression mse, mae, rmse or r2; of several labels an example accuracy (of all labels),
            subset_accuracy, macro_f1, roc_auc, average_precision or log_loss; or one of the user's own, as
            `{name: package.module:function, higher_is_better: true}`. See `docs/goals.md`.
        tolerance: how far short of the reference still counts as matched, in the metric's units, positive.
        distortion: faults put into the training part, for experiments.
        train: a training function of the user's own as `package.module:function`, in place of data, model and loop. It
            is called with a `subsettune.Run`, which hands out batches and rates: see docs/own_training.md. Or a command
            line, as `python train.py`: the program gets the same by `subsettune.session()`.
        train_options: what that function finds as `run.options`.
        examples: N, the training examples that the function has, numbered from 0.
        validation_examples: that its validation metric is the mean over, where the metric is a mean over examples. With
            it and the next, the search and the plan know how much of a difference is the choice of the examples.
        test_examples: likewise of its test metric.
        flops_per_example: of its network; default: not known, and compute is counted in examples.
        outputs: M, output units, where `q` is searched.
        parameters: P, trainable parameters, likewise.
        version: any text that is changed when what the function reads from elsewhere changes, its data above all.
            With one, finished runs of the recipe are kept for later studies.
        kind: classification, regression or multilabel (targets (n, M) of 0 and 1); default: what the metric suits
            first, and classification for one of the user's own.
        loss: `package.module:function` of outputs and targets, in place of the cross-entropy (of each label of several)
            or the squared error.
        positive: of roc_auc and average_precision of two classes, the name of the one that is looked for; default: the
            second in the order of the names.
        own_metric: what `metric` says of one of the user's own beside its name.
    """

    data: Data
    split: Split = setting(Split())
    model: Model
    recipe: Recipe
    metric: str = setting("accuracy", rule=METRIC_RULE)
    tolerance: float = setting(rule=POSITIVE)
    distortion: Corruption = setting(Corruption())
    kind: str = setting("", rule=KIND_RULE)
    loss: str | None = setting(None, rule=LOSS_RULE)
    positive: str | int | None = None
    own_metric: OwnMetric | None = None
    train: str | None = setting(None, rule=_TRAIN)
    train_options: FrozenDict = setting(FrozenDict())
    examples: int | None = setting(None, rule=AT_LEAST_ONE)
    validation_examples: int | None = setting(None, rule=AT_LEAST_ONE)
    test_examples: int | None = setting(None, rule=AT_LEAST_ONE)
    flops_per_example: ExampleFlops | None = None
    outputs: int | None = setting(None, rule=AT_LEAST_ONE)
    parameters: int | None = setting(None, rule=AT_LEAST_ONE)
    version: str | None = None

    @classmethod
    def fold(cls, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take a metric of the user's own apart, and leave out what a training function of theirs has itself."""
        if isinstance(raw.get("metric"), Mapping):
            raw = {**raw, **metric_parts(raw["metric"])}
        if raw.get("train") is None:
            return raw
        name = raw.get("metric")
        if isinstance(name, str) and raw.get("own_metric") is not None and name.isidentifier():
            raw = {**raw, "metric": f"{TOLD}{name}"}  # which it tells, under whatever name
        mistakes = [
            Mistake((key,), f"{key} must be left out beside train: the function has its own. Remove the key.")
            for key in ("model", "split", "distortion", "loss", "positive")
            if key in raw
        ]
        if mistakes:
            raise ConfigError(tuple(mistakes))
        return {"data": NO_DATA, "model": NO_MODEL, **raw}

    @classmethod
    def from_mapping(cls, raw: object, source: str | None = None) -> Task:
        """Read what stands under `task:` of a study file, or what `to_mapping` wrote.

        Raises:
            ConfigError: with every mistake.
        """
        return config.build(cls, raw, source=source)

    def __post_init__(self) -> None:
        given: object = self.metric
        if isinstance(given, Mapping):
            for name, value in metric_parts(given).items():
                object.__setattr__(self, name, value)
        config.check(self)
        if not self.kind:
            object.__setattr__(self, "kind", usual_kind(self.metric))
        recipe = self.recipe
        of_loss = {"label_smoothing": recipe.label_smoothing > 0, "class_weights": recipe.class_weights is not None}
        mistakes = [
            *metric_mistakes(self.metric, self.own_metric, self.kind, self.tolerance),
            *loss_mistakes(self.loss, self.kind, of_loss),
            *self._own_mistakes(),
            *positive_mistakes(self.metric, self.kind, self.positive),
        ]
        if self.kind != "classification" and self.distortion.flip_labels:
            message = f"flip_labels means nothing to {self.kind}, which has no classes. Remove the key."
            mistakes.append(Mistake(("distortion", "flip_labels"), message))
        if mistakes:
            raise ConfigError(tuple(mistakes))

    def to_mapping(self) -> dict[str, Any]:
        """Plain form. What is new stands in it where it is given: what does nothing changes no key."""
        is_left_out = {
            "distortion": self.distortion.is_off,
            "kind": self.kind == usual_kind(self.metric),
            "loss": self.loss is None,
            "positive": self.positive is None,
            "own_metric": True,
            **{key: getattr(self, key) in (None, FrozenDict()) for key in OWN_KEYS},
            **({"data": not self.has_data, "model": True, "split": True} if self.is_own else {}),
        }
        names = [name for name in self.__dataclass_fields__ if not is_left_out.get(name)]
        plain = {name: config.to_plain(getattr(self, name)) for name in names}
        if self.own_metric is not None:
            plain["metric"] = {"name": self.metric.removeprefix(TOLD), **config.to_plain(self.own_metric)}
        return plain

    def _own_mistakes(self) -> list[Mistake]:
        """Keys of a training function without one, and one that does not say how many examples it has."""
        given = [key for key in OWN_KEYS[1:] if getattr(self, key) not in (None, FrozenDict())]
        if self.train is None and self.recipe.own:
            message = "own means nothing without task.train, whose function reads it. Remove the key."
            return [Mistake(("recipe", "own"), message)]
        if self.train is None:
            return [Mistake((key,), f"{key} means nothing without train. Remove the key.") for key in given]
        if self.examples is None:
            return [Mistake((), "key 'examples' is missing: how many training examples the function has.")]
        if self.recipe.optimizer == "lbfgs":
            message = "optimizer must be another one beside train: what lbfgs spends on an update is known afterwards."
            return [Mistake(("recipe", "optimizer"), message)]
        return []

    @property
    def is_own(self) -> bool:
        """Whether a function of the user's trains it."""
        return self.train is not None

    @property
    def has_flops(self) -> bool:
        """Whether what an example costs is known, so that compute is counted in FLOPs and not in examples."""
        return self.train is None or self.flops_per_example is not None

    @property
    def is_script(self) -> bool:
        """Whether what trains it is a program of its own."""
        return self.train is not None and _FUNCTION.fullmatch(self.train) is None

    @property
    def has_data(self) -> bool:
        """Whether there is anything to read."""
        return self.data != NO_DATA

    @property
    def words(self) -> str:
        """What is trained on what, for people."""
        return f"{self.model.name} on {self.data.source}" if self.train is None else self.train

    def test_identity(self, fingerprint: str) -> str:
        """Names the test split of a task with such data: a function of the user's has one of its own.

        Args:
            fingerprint: of the data.
        """
        return config.digest([fingerprint, self.train]) if self.is_own else fingerprint

    @property
    def judged(self) -> Metric:
        """What is known of the metric."""
        return judged(self.metric, self.own_metric, self.kind)

    @property
    def higher_is_better(self) -> bool:
        """Direction of the metric."""
        return self.judged.higher_is_better

    @property
    def has_error(self) -> bool:
        """Whether the metric is an error, or what it is short of 1 is one, so that errors can be compared."""
        return self.own_metric is None

    @property
    def counts_examples(self) -> bool:
        """Whether the metric is a share of examples whose answer is right, or nearly."""
        is_of_labels = self.kind == "multilabel" and self.metric != "subset_accuracy"
        return self.own_metric is None and self.judged.has_steps and not is_of_labels

    @property
    def run_identity(self) -> dict[str, Any]:
        """What a run depends on: neither the tolerance nor what the fingerprint of the data tells."""
        told = {name: getattr(self, name) for name in ("data", "split", "model", "recipe", "metric")}
        told |= {name: value for name in ("loss", "positive") if (value := getattr(self, name)) is not None}
        return {**told, "own": {key: getattr(self, key) for key in OWN_KEYS}} if self.is_own else told

    @property
    def key(self) -> str:
        """Content hash of the task's definition; the data's own fingerprint is apart."""
        return config.digest(self)

    def target(self, reference_metric: float) -> float:
        """The worst metric that still counts as matched in the search."""
        return reference_metric - self.tolerance if self.higher_is_better else reference_metric + self.tolerance
