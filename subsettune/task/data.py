"""Where the examples come from: the source of a task, and how it is read."""

from __future__ import annotations

import codecs
import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from subsettune import config, in_memory
from subsettune.config import AT_LEAST_ONE, FrozenDict, Rule, setting
from subsettune.errors import ConfigError, Mistake
from subsettune.registry import DATASETS

FILES = (".parquet", ".npz", ".tsv", ".tsv.gz", ".csv", ".csv.gz")
TEXT_KEYS = ("text", "tokens", "max_tokens", "vocabulary")  # mean something to texts alone


def named(key: str, name_of: Callable[[Any], str], value: Any) -> Any:
    """What names an object of Python's in a file; texts, and what is none, stay as they are."""
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        return name_of(value)
    except ConfigError as error:
        raise ConfigError(tuple(Mistake((key,), m.message) for m in error.mistakes)) from error


def _is_encoding(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _is_format(form: str) -> bool:
    if form == "ISO":
        return True
    try:
        dt.datetime.strptime("", form)
    except ValueError as error:  # of a format that is known too: no text is empty
        return "%" in form and "directive" not in str(error) and "stray" not in str(error)
    return False


def _is_source(name: str) -> bool:
    return name in DATASETS or ":" in name or "/" in name or name.endswith(FILES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Csv:
    """How .csv files are written, where that is not to be found out.

    Args:
        separator: one sign between fields; default: what of comma, semicolon, tab and vertical bar the first lines
            have.
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
            numbers where all are decimal ones without leading zeros, else names. The classes -1 and 1 are two;
            other numbers that do not start at 0 are classes of these names, where they are few.
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
        return {**raw, "source": named("source", in_memory.source_name, raw["source"])} if "source" in raw else raw

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", named("source", in_memory.source_name, self.source))
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
            if not isinstance(form, str) or not _is_format(form):
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
