"""The exception tree. Every error that a user can cause is a SubsettuneError and also the built-in it resembles.

SubsettuneError
├── ConfigError (ValueError)             a study file, flag, policy or argument is wrong; `.mistakes` lists all of them
│   └── ArgumentError (TypeError)        a function was called with a keyword that it has not
├── DataError (ValueError)               the examples cannot be used
│   └── DataNotFoundError (FileNotFoundError)
├── ModelError (ValueError)              the network does not fit the task, or its FLOPs cannot be counted
├── SelectionError (ValueError)          a selector was asked for what it cannot give
│   └── ModelDivergedError               the network that a selector looks at left the finite numbers
├── LearningError (ValueError)           the conventional recipe does not learn the task
├── TrainingFunctionError (RuntimeError) a training function of the user's did what no run can be made of
├── CheckpointError (ValueError)         a checkpoint is damaged or belongs to another run
├── BundleError (ValueError)             a bundle is damaged, of an unknown version, or made for other data
├── MissingPackageError (ImportError)    a package is needed that a base install leaves out
└── StudyError (ValueError)              a study on disk is damaged, or belongs to another task
    └── StorageError (OSError)           the storage path cannot be read or written

The command line prints the sentence and exits with 2. Bugs of our own are `assert`s and keep their traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """`Did you mean 'lr'?`, of the known name that is most like a mistyped one; empty where none is.

    Upper and lower case, and `-` and `_`, are one. The sentence that it is put into lists all known names.
    """
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near is not None else ""


def nearest(word: object, known: Iterable[object], likeness: float = 0.6) -> str | None:
    """The known name that is most like a mistyped one; None where none is as like as 0.6, or as is asked for."""
    names = {_folded(name): str(name) for name in known}
    found = difflib.get_close_matches(_folded(word), sorted(names), n=1, cutoff=likeness)
    return names[found[0]] if found else None


def _folded(name: object) -> str:
    return str(name).lower().replace("-", "_")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in an input: where (a path of keys, and a line of the file where there is one) and what."""

    path: tuple[str, ...]
    message: str
    line: int | None = None

    def __str__(self) -> str:
        """Render as `line 12, task.recipe: lr must be ...`."""
        where = ".".join(self.path)
        if self.line is not None:
            where = f"line {self.line}, {where}" if where else f"line {self.line}"
        return f"{where}: {self.message}" if where else self.message


class SubsettuneError(Exception):
    """Root of all errors that a user can cause and mend."""


class ConfigError(SubsettuneError, ValueError):
    """An input is wrong. Holds every mistake found, not only the first.

    Args:
        mistakes: what is wrong; a plain string is one mistake without a place.
        source: the file the input came from, if any.
    """

    def __init__(self, mistakes: str | tuple[Mistake, ...], source: str | None = None) -> None:
        self.mistakes: tuple[Mistake, ...] = (Mistake((), mistakes),) if isinstance(mistakes, str) else tuple(mistakes)
        self.source = source
        super().__init__(self._render())

    def _render(self) -> str:
        lines = [str(mistake) for mistake in self.mistakes]
        if self.source is None:
            return "\n".join(lines)
        return "\n".join(f"{self.source}: {line}" for line in lines)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Mistake, ...], str | None]]:
        return type(self), (self.mistakes, self.source)


class ArgumentError(ConfigError, TypeError):
    """A function was called with a keyword that it has not."""


class DataError(SubsettuneError, ValueError):
    """The examples cannot be used."""


class DataNotFoundError(DataError, FileNotFoundError):
    """The data are not where they are expected."""


class ModelError(SubsettuneError, ValueError):
    """The network does not fit the task, or its FLOPs cannot be counted."""


class SelectionError(SubsettuneError, ValueError):
    """A selector was asked for what it cannot give."""


class ModelDivergedError(SelectionError):
    """The network that a selector looks at left the finite numbers: an outcome of the run, as a diverged loss is."""


class CostWarning(UserWarning):
    """Examples do not cost the same, and each is charged the mean; the command line says so in lines of its own."""


class LearningError(SubsettuneError, ValueError):
    """The conventional recipe does not learn the task, so there is nothing to match."""


class TrainingFunctionError(SubsettuneError, RuntimeError):
    """A training function of the user's did what no run can be made of."""


class CheckpointError(SubsettuneError, ValueError):
    """A checkpoint is damaged or belongs to another run."""


class BundleError(SubsettuneError, ValueError):
    """A bundle is damaged, of an unknown version, or made for other data."""


class MissingPackageError(SubsettuneError, ImportError):
    """A package is needed that a base install leaves out."""


class StudyError(SubsettuneError, ValueError):
    """A study on disk is damaged, or belongs to another task."""


class StorageError(StudyError, OSError):
    """The storage path cannot be read or written."""
