"""What an example is, in words: for people who are about to train on it."""

from __future__ import annotations

from collections.abc import Callable

from subsettune.data.encode import Encoder
from subsettune.data.layout import OWN_IDS
from subsettune.data.parts import TaskData
from subsettune.task import Data

# What a guess was, and what to do where it is wrong.
GUESSES = {
    "grey": "taken for an image because it has two dimensions: set data.layout to series for sensors or channels by "
    "time, to flat for numbers that stand for themselves",
    "channels_last": "taken for channels last, and turned round: where the last axis holds no channels, transpose the "
    "arrays",
    "channels_first": "taken for channels first: where the channels are last, move them to the front",
    "numbers": "taken for numbers, though they are whole: for ids that a network embeds set data.layout to tokens",
}


def describe_example(data: TaskData, asked: Data) -> str:
    """What an example is as networks get it, and what that was guessed from.

    Args:
        data: of a task.
        asked: what the task says of them; with a layout nothing was guessed.

    Returns:
        Some words, like `image (1, 28, 28): 1 channel of 28 x 28, standardised by channel`, and a guess in brackets.
    """
    words = TOLD.get(len(data.input_shape), _numbers)(data) if not data.num_tokens else _tokens(data)
    guess = guess_of(data, asked)
    return f"{words} ({guess})" if guess else words


def guess_of(data: TaskData, asked: Data) -> str:
    """What an example was taken for, and what to do where that is wrong; empty where it is sure.

    Args:
        data: of a task.
        asked: what the task says of them; with a layout nothing was guessed but which axis of a series is time.
    """
    if asked.layout == "series" and data.input_shape[0] > data.input_shape[1]:
        c, t = data.input_shape
        return f"taken for {_count(c, 'channel')} of {_count(t, 'step')}: where time comes first, transpose the arrays"
    return GUESSES.get(data.taken, "") if asked.layout is None else ""


def _image(data: TaskData) -> str:
    c, h, w = data.input_shape
    return f"image {data.input_shape}: {_count(c, 'channel')} of {h} x {w} pixels, standardised by channel"


def _series(data: TaskData) -> str:
    c, t = data.input_shape
    return f"series {data.input_shape}: {_count(c, 'channel')} of {_count(t, 'step')}, standardised by channel"


def _numbers(data: TaskData) -> str:
    shape = f" {data.input_shape}" if len(data.input_shape) > 1 else ""
    encoded = ", categories one-hot" if isinstance(data.train.encoder, Encoder) else ""
    return f"{_count(data.num_features, 'number')}{shape}, each standardised on its own{encoded}"


def _tokens(data: TaskData) -> str:
    (length,) = data.input_shape
    of = {OWN_IDS: "ids as they are, 0 the padding", "bytes": "bytes"}.get(data.tokens, "words, padding and unknown")
    return f"tokens {data.input_shape}: {_count(length, 'place')}, {data.num_tokens:,} ids ({of})"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


TOLD: dict[int, Callable[[TaskData], str]] = {3: _image, 2: _series}
