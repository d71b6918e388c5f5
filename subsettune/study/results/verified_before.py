"""Which studies were verified on one test split, on this machine: each of them is a chance to be wrong on it.

One study keeps its error rate alpha. Whoever runs five on one test split, and believes the best, has five chances: that
any of five passes a policy that does not match has a probability of at most five times alpha (Bonferroni), and of
1 - (1 - alpha)^5 where they are independent. Nobody can see that from one study's folder, so it is noted beside the
cached references.

Each study has a file of its own, named after the study, written whole or not at all: two studies at once do not meet,
the same study is noted once however often it starts, and a file that is damaged still counts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from subsettune import config
from subsettune.storage import Folder

FOLDER = "verified"  # in the cache
ADVICE = "Confirm what you keep with --fresh-seeds."
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStudies:
    """The studies that were verified on one test split.

    Args:
        folder: of their files.
    """

    folder: Folder

    @classmethod
    def of(cls, cache: str, fingerprint: str) -> VerifiedStudies:
        """Those of a data set as it is split.

        Args:
            cache: this machine's cache folder.
            fingerprint: of data and split, so that the same examples split anew are another test split.
        """
        return cls(folder=Folder.at(cache) / FOLDER / fingerprint[:32])

    def note(self, run_id: str, created: str, *, at: str) -> None:
        """Note that a study begins to measure on the test split; a study that was noted stays as it was.

        Args:
            run_id: of the study.
            created: when it began, as its manifest says: studies of one name in two folders are two studies.
            at: now, in UTC, as ISO 8601.

        Raises:
            StorageError: the cache cannot be written.
        """
        name = _name(run_id, created)
        if not self.folder.exists(name):
            content = {"run_id": run_id, "created": created, "at": at, "others": self.count()}
            self.folder.write(name, json.dumps(content, sort_keys=True).encode())

    def count(self) -> int:
        """How many studies were noted."""
        return len(self._names())

    def place(self, run_id: str, created: str) -> int:
        """The how many-th a study is, by when it was noted: 1 for the first; the next one if it is not noted yet."""
        own = _name(run_id, created)
        others = [name for name in self._names() if name != own]
        if not self.folder.exists(own):
            return len(others) + 1
        mine = (*self._at(own), own)
        return 1 + sum((*self._at(name), name) < mine for name in others)

    def _names(self) -> list[str]:
        """File names; those of writes that are under way begin with a dot."""
        return [name for name in self.folder.names() if name.endswith(".json") and not name.startswith(".")]

    def _at(self, name: str) -> tuple[str, int]:
        """When a study was noted, and beside how many, as seconds are long.

        Of a damaged file nothing, which is before all others: they count one more.
        """
        try:
            noted = json.loads(self.folder.read(name))
            at, others = noted["at"], int(noted.get("others", 0))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return "", 0
        return (at, others) if isinstance(at, str) else ("", 0)


def _name(run_id: str, created: str) -> str:
    return f"{config.digest([run_id, created])[:32]}.json"


def any_false(num_studies: int, alpha: float) -> tuple[float, float]:
    """Probability that any of some studies passes what does not match: at most, and where they are independent.

    Args:
        num_studies: on one test split, at least 1.
        alpha: error rate of each.
    """
    return min(1.0, num_studies * alpha), 1 - (1 - alpha) ** num_studies


def sentence(place: int, alpha: float, *, is_confirmed: bool = False) -> str | None:
    """What to know beside a study's result; None for the first study on its test split.

    Args:
        place: the how many-th it is, 1 for the first.
        alpha: error rate of each study.
        is_confirmed: whether its policy was confirmed with fresh seeds, which owes nothing to the others.
    """
    if place <= 1:
        return None
    at_most, independent = any_false(place, alpha)
    advice = "" if is_confirmed else f" {ADVICE}"
    return (
        f"This is the {_ordinal(place)} study on this test split on this machine: that any of {place} passes a "
        f"policy that does not match has a probability of at most {_rounded_up(at_most)}, and of {independent:.3g} if "
        f"they are independent, where each has this study's error rate.{advice}"
    )


def plan_sentence(num_before: int, alpha: float) -> str | None:
    """What to know before a new study; None where none was verified on its test split.

    Args:
        num_before: studies that were.
        alpha: error rate of each study.
    """
    if num_before == 0:
        return None
    at_most, _ = any_false(num_before + 1, alpha)
    studies = "1 study was" if num_before == 1 else f"{num_before:,} studies were"
    return (
        f"{studies} verified on this test split before, on this machine: with a new one the probability that any of "
        f"{num_before + 1} passes a policy that does not match is at most {_rounded_up(at_most)}, where each has this "
        f"study's error rate. {ADVICE}"
    )


def _rounded_up(probability: float) -> str:
    """Four digits, and never less than it is."""
    scale = 10.0 ** (3 - math.floor(math.log10(probability)))
    return f"{math.ceil(round(probability * scale, 6)) / scale:.4g}"


def _ordinal(place: int) -> str:
    if place <= len(ORDINALS):
        return ORDINALS[place - 1]
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{place}{'th' if 11 <= place % 100 <= 13 else ends.get(place % 10, 'th')}"
