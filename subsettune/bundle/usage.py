"""How other training code follows a policy, as the page of a bundle says it: what it can do by itself, and what not.

Ordinary training on rows takes nothing but the table of rows and the lengths of the phases. So does an order that never
looks at the network. An order that goes by losses, a soup and a pruned network are work of subsettune's own loop.
"""

from __future__ import annotations

from collections.abc import Sequence

from subsettune.bundle.bundle import Bundle
from subsettune.policy import Policy
from subsettune.train.orders.base import Order, Stream
from subsettune.train.planning.phases import resolve_phases

_PLAIN = """from subsettune.bundle import Bundle
from subsettune.train import schedule

bundle = Bundle.load(PATH)
recipe, seen, total = bundle.recipe, 0, sum(bundle.visits)
factor = schedule.make(recipe.schedule, recipe.schedule_options)
for number, phase in enumerate(bundle.policy.phases):
    rows = ALL_ROWS if phase.is_full else bundle.subset(number).index  # .weight multiplies the losses
    end = seen + bundle.visits[number]  # examples that go through the network; first apply phase.transition
    while seen < end:
        seen += train_on_next_batch(rows, lr=recipe.lr * factor(seen / total))  # yours; gives the batch's size"""

_ORDERED = """import torch
from subsettune.bundle import Bundle
from subsettune.train import orders, schedule

bundle = Bundle.load(PATH)
recipe, seen, total = bundle.recipe, 0, sum(bundle.visits)
factor = schedule.make(recipe.schedule, recipe.schedule_options)
stream = orders.of(bundle.policy.phases[0]).stream(len(ALL_ROWS), recipe.batch_size, SEED)
place = {row: position for position, row in enumerate(ALL_ROWS)}
for number, phase in enumerate(bundle.policy.phases):
    pool = None if phase.is_full else torch.tensor([place[row] for row in bundle.subset(number).index])
    stream.enter(pool)  # bundle.subset(number).weight multiplies the losses; first apply phase.transition
    end = seen + bundle.visits[number]  # examples in the batches
    while seen < end:
        batch = stream.next(seen / total)  # positions in ALL_ROWS, and weights of the losses or None
        train_on_batch(batch.positions, batch.weights, lr=recipe.lr * factor(seen / total))  # yours
        seen += len(batch)"""

_OWN_LOOP = """from subsettune import Bundle, DataPaths, train

bundle = Bundle.load(PATH)
options = train.RunOptions(keep_model=True, places=DataPaths())  # where this machine keeps data
result = train.run(bundle.task, bundle.policy, seed=0, options=options)
network = result.model"""

_OWN_CODE = (
    "In training code of your own, with torch, NumPy and pyarrow alone. `ALL_ROWS` are the rows that you train on; in "
    "the study {num_examples:,}, all but those that were held out ({held_out})."
)


def how(bundle: Bundle, held_out: str) -> str:
    """The paragraph that says how, and the code.

    Args:
        bundle: to be followed.
        held_out: which rows are not trained on, in words.
    """
    own_code = _OWN_CODE.format(num_examples=bundle.facts.num_examples, held_out=held_out)
    needs = _needs(bundle)
    if needs:
        return f"{_honest(bundle.policy, needs)}\n\n```python\n{_OWN_LOOP}\n```"
    if bundle.policy.phases[0].order == "uniform":
        return f"{own_code}\n\n```python\n{_PLAIN}\n```"
    order = bundle.policy.phases[0].order
    more = f"Batches come from the stream of the order `{order}`, which does not look at the network."
    return f"{own_code} {more}\n\n```python\n{_ORDERED}\n```"


def _needs(bundle: Bundle) -> dict[int, str]:
    """Phases that only subsettune's own loop carries out, each with what it needs it for."""
    found: dict[int, str] = {}
    for index, phase in enumerate(resolve_phases(bundle.policy, bundle.recipe, bundle.facts)):
        if phase.is_soup:
            found[index] = "trains workers apart and averages them"
        elif not _is_blind(phase.order):
            name = phase.phase.order
            found[index] = f"takes its batches in the order `{name}`, which goes by what the network does"
        elif phase.facts != bundle.facts:
            found[index] = "trains a network that was made narrower, unit by unit, by its own activations"
    return found


def _is_blind(order: Order) -> bool:
    """Whether which examples an update is on follows from the seed alone."""
    kind = type(order.stream(1, 1, 0))
    return kind.update is Stream.update and kind.attach is Stream.attach


def _honest(policy: Policy, needs: dict[int, str]) -> str:
    """Which phases other code can follow, which not and why, and the call that follows all of them."""
    reasons = [f"{_numbered(_of(needs, reason))} {reason}" for reason in dict.fromkeys(needs.values())]
    free = [index for index in range(len(policy.phases)) if index not in needs]
    alone = (
        f"{_numbered(free).capitalize()} is ordinary training on the rows of the table, or on all of them, which other "
        "code can do by itself."
        if free
        else "No phase is ordinary training that other code could do by itself."
    )
    return (
        f"Not by training code of your own alone: {'; '.join(reasons)}. {alone} One learning-rate schedule goes "
        "through all phases, so the whole policy is best left to subsettune's own loop, here with torch, NumPy and "
        "pyarrow alone:"
    )


def _of(needs: dict[int, str], reason: str) -> list[int]:
    return [index for index, why in needs.items() if why == reason]


def _numbered(phases: Sequence[int]) -> str:
    """`phase 2`, or `each of the phases 1, 2`: words that go before a verb in the singular."""
    numbers = ", ".join(str(index + 1) for index in phases)
    return f"phase {numbers}" if len(phases) == 1 else f"each of the phases {numbers}"
