"""The words of the report: what each means, and how a text of the page leads to it.

A word in a text is a link to its line in the page's list of words, which the page's script also shows where one points
at the link or reaches it by keyboard.
"""

from __future__ import annotations

import re
from functools import cache

from markupsafe import Markup, escape

WORDS = {
    "recipe": "The conventional training of a task: optimizer, learning rate, batch size, schedule, epochs.",
    "reference": "The recipe, trained with several seeds. What a policy has to match.",
    "policy": "How the compute of one training is spent: phases, and the keys of the recipe that it changes.",
    "pass": (
        "The unit of compute: the FLOPs of one conventional epoch, forward and backward of every training example."
    ),
    "seed": "The number that decides the initial weights of a run, and the order in which it sees the examples.",
    "tolerance": "How much worse than the reference still counts as matched, in the metric's units: the tests' margin.",
    "validation split": "Examples that the search judges trials by. It looks often, so that its best numbers flatter.",
    "test split": "Examples that nothing is chosen by: verification alone looks at them, after the search.",
    "target": "The worst metric on the validation split that still counts as matched.",
    "trial": "A run, one training with one seed, that the search proposed; it is judged on the validation split alone.",
    "arm": "Which of two kinds a policy is: `full`, a shorter schedule on all data; or `subset`, a subset first.",
    "switch": "Where a policy moves from a subset to all data, as a share of its compute.",
    "selector": "Who chooses the examples of a phase, and says beforehand what choosing costs.",
    "order": "Which examples of the pool come next within a phase. `uniform` is every one once a round, shuffled.",
    "transition": (
        "What happens to weights and optimizer when a phase begins: nothing, a reset, noise, a narrower network."
    ),
    "soup": "A phase in which workers train apart, each on a shard of the pool with a sparse mask, and are averaged.",
    "candidate": "A policy of the search that verification trains again, with several seeds, for the test split.",
    "short recipe": "The recipe as it is for fewer passes, which verification tests last; `recipe` in files.",
    "control": (
        "What the winner is held against at equal compute: all data by the settings that the search found (`equal`) or "
        "by its own (`own`), or a random subset."
    ),
    "bound": "The policy is at most so far below the reference, but for the error rate that is its level.",
    "level": "What the tests of one candidate have of the study's error rate; one that passes leaves it to the others.",
    "p-value": "How often a policy that is worse than the reference by all of the tolerance would give such runs.",
    "n": "Runs behind a mean. 9|5 are 9 runs of the policy, held against 5 of the reference.",
    "saved": "The share of the recipe's compute that a policy does not need; what missed saves nothing.",
    "vs short": "The same against the cheapest schedule on all data that matches: what is saved beyond training less.",
    "error": "How much the error (1 - accuracy, say) grows, as a share of the reference's.",
    "other examples": "Where the difference lies when test examples are drawn anew, too: two-sided.",
    "bundle": (
        "A folder of JSON and Parquet that holds a policy, its subsets and its evidence, for training code elsewhere."
    ),
}
HEADINGS_ALONE = ("n", "saved", "vs short", "error", "other examples", "order", "pass")  # mean more in sentences
PASS_OF_EXAMPLES = "The unit of compute: every training example once. What one costs is not known here."
IN_TEXT = {
    **{word: word for word in WORDS if word not in HEADINGS_ALONE},
    **{f"{word}s": word for word in ("recipe", "trial", "arm", "seed", "selector", "transition", "soup", "candidate")},
    **{"policies": "policy", "lower bound": "bound", "margin": "tolerance", "controls": "control"},
}
IN_HEADINGS = {**{word: word for word in WORDS}, **IN_TEXT, "passes": "pass", "above": "tolerance"}


def words(unit: str) -> dict[str, str]:
    """The words and what they mean, where compute is counted in `FLOP` or in examples."""
    return WORDS if unit == "FLOP" else {**WORDS, "pass": PASS_OF_EXAMPLES}


def anchor(word: str) -> str:
    """The id of a word's line in the list."""
    return f"word-{word.replace(' ', '-')}"


def explained(text: str | Markup) -> Markup:
    """The text, escaped, in which each word of the list leads to it where it first stands."""
    found = set[str]()

    def linked(match: re.Match[str]) -> str:
        word = IN_TEXT[match[0].lower()]
        if word in found:
            return match[0]
        found.add(word)
        return _link(word, match[0])

    return Markup(_pattern().sub(linked, str(escape(text))))


def heading(title: str) -> Markup:
    """The title of a column, leading to the word that it is."""
    word = IN_HEADINGS.get(title)
    return escape(title) if word is None else Markup(_link(word, str(escape(title))))


def _link(word: str, text: str) -> str:
    return f'<a class="term" href="#{anchor(word)}" aria-describedby="{anchor(word)}">{text}</a>'


@cache
def _pattern() -> re.Pattern[str]:
    longest_first = sorted(IN_TEXT, key=len, reverse=True)
    return re.compile(rf"(?<![\w&-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE)
