"""How other training code follows a policy, as the page of a bundle says it: what it can do by itself, and what not.

Every policy is followed by subsettune's own loop. Ordinary training on rows is followed by other code, too, to which
`Bundle.batch_sampler` hands out rows, weights and rates. An order that goes by what the network does, a soup, a pruned
network and a line search are work of the loop alone.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from subsettune.bundle.bundle import Bundle
from subsettune.bundle.follow import why_not
from subsettune.bundle.paths import is_path
from subsettune.in_memory import is_given
from subsettune.text import joined
from subsettune.train.planning.phases import resolve

_OWN_LOOP = """from subsettune import Bundle, DataPaths, TrainedModel, train

bundle = Bundle.load({place!r})
places = {places}
options = train.RunOptions({threads}fingerprint=bundle.fingerprint, places=places)
result = train.run(bundle.task, bundle.policy, seed=bundle.seed, final=True, options=options)
network = result.model
model = TrainedModel.of(result, bundle.task, places)  # model.predict(rows), model.save("model")"""

_OF_FUNCTION = """{where} With the study file; the weights are those that the function gives `run.finish`:

```sh
subsettune train STUDY.yaml --policy {place} --seed 0 --save weights.pt
```"""

_ONCE = """{where} Train by the policy on the data of the study, keep the model, and ask it about other rows:

```sh
subsettune follow {place} --save model
subsettune predict model ROWS{ending} --output predictions.parquet
```"""

_NIGHTLY = """A nightly job, on new data of the same columns and classes:

```sh
subsettune follow {place} --data NEW{ending} --save model
```

`follow` derives sizes anew, says what it changed, holds the result against the runs behind this bundle, and ends with
exit code 4 where it is clearly worse than they let expect."""

_OWN_CODE = """from subsettune import Bundle

# Yours are {yours} and train_on_batch, which makes one update.
bundle = Bundle.load({place!r})
sampler = bundle.batch_sampler({data})
sampler.on_switch(network=network, optimizer=optimizer)
scheduler = sampler.scheduler(optimizer)
for rows, weights in sampler.batches():
    {update}
    scheduler.step()
sampler.finish()"""
_UPDATE = "train_on_batch(rows, weights)"
_OBSERVED = "sampler.observe(rows, train_on_batch(rows, weights))  # it gives the losses without weights"
_LOADER = (
    "For a loader: `DataLoader(dataset, batch_sampler=sampler)`, one epoch, in which `sampler.weights` are those of "
    "the step. `docs/hosts.md` of subsettune has Lightning, transformers, accelerate, Ray Train and others."
)


SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".npz")
_LOSSES = {
    "classification": "cross-entropy",
    "regression": "squared error",
    "multilabel": "cross-entropy of each label, a mean over the labels,",
}
_CLASS_WEIGHTS = "the losses of each class weighed as `class_weights` says, 1 on average over the training part"


def called(place: object) -> str:
    """How a bundle is named by whoever reads its page: by a URI in full, in a folder by its name in there."""
    text = str(place)
    return text if "://" in text else Path(text).absolute().name


def usage(bundle: Bundle, place: str, held_out: str) -> str:
    """How the bundle is used, as Markdown of paragraphs and code alone: by commands, in Python, in code of one's own.

    Args:
        bundle: to be followed.
        place: what it is called, from `called`.
        held_out: which rows are not trained on, in words.
    """
    return f"{commands(bundle, place)}\n\n{how(bundle, place, held_out)}"


def commands(bundle: Bundle, place: str) -> str:
    """What follows it on the command line; arguments as of `usage`."""
    where = "" if "://" in place else f"All of this is for the folder that `{place}` lies in."
    if bundle.task.is_own:
        return _OF_FUNCTION.format(place=shlex.quote(place), where=where).strip()
    source = bundle.task.data.source
    suffix = next((end for end in SUFFIXES if source.endswith(end)), ".parquet")
    is_folder = is_path(source) and not source.endswith(SUFFIXES)
    parts = [_NIGHTLY] if is_given(source) else [_ONCE, _NIGHTLY]  # what was handed over is nowhere to be read again
    ending = "/" if is_folder else suffix
    text = "\n\n".join(parts).format(place=shlex.quote(place), ending=ending, where=where)
    return f"{where} {text}" if is_given(source) else text.strip()


def how(bundle: Bundle, place: str, held_out: str) -> str:
    """The paragraphs that say how, and the code.

    Args:
        bundle, place, held_out: as of `usage`.
    """
    if bundle.task.is_own:
        return _own_function(bundle, place)
    threads = bundle.evidence.num_threads
    given = "" if threads is None else f"num_threads={threads}, "
    loop = _OWN_LOOP.format(place=place, threads=given, places=_places(bundle))
    parts = [
        "In Python, by subsettune's own loop, without Ray or Optuna. The same seed, number of threads and version of "
        "torch give the same bits on a CPU; other data than those of the fingerprint are refused:",
        f"```python\n{loop}\n```",
    ]
    needs = why_not(bundle)
    if needs:
        return "\n\n".join([*parts, _honest(len(bundle.policy.phases), needs)])
    update = _UPDATE if _is_blind(bundle) else _OBSERVED
    data, yours = ("DATA", "DATA") if bundle.rows is not None else ("DATA, rows=ROWS", "DATA, ROWS")
    code = _OWN_CODE.format(place=place, update=update, data=data, yours=f"{yours}, network, optimizer")
    return "\n\n".join([*parts, _own_code(bundle, held_out), f"```python\n{code}\n```", _yours(bundle), _LOADER])


def _own_function(bundle: Bundle, place: str) -> str:
    """What follows a policy that was found with a training function of the user's own."""
    threads = bundle.evidence.num_threads
    given = "" if threads is None else f"num_threads={threads}, "
    loop = _OWN_LOOP.format(place=place, threads=given, places="DataPaths()  # where this machine keeps data")
    loop = loop.replace("DataPaths, TrainedModel, train", "DataPaths, train").rpartition("\n")[0]  # rows mean nothing
    return (
        f"In Python, by `{bundle.task.train}`, the training function that the study ran, which must be importable. The "
        "network is what it gives `run.finish` as its model:\n\n"
        f"```python\n{loop}\n```"
    )


def _places(bundle: Bundle) -> str:
    """Where data are found, as code: bundles of before hold paths as the study file had them."""
    source = bundle.task.data.source
    if is_path(source) and not source.startswith(("/", "~")):
        return f'DataPaths(data_root="FOLDER")  # that {source!r} lies in'
    if is_path(source):
        return "DataPaths()  # the data are read from where the study found them: data.source in policy.json"
    return "DataPaths()  # where this machine keeps data"


def _own_code(bundle: Bundle, held_out: str) -> str:
    return (
        "In training code of your own, with torch, NumPy and pyarrow alone. `DATA` are all rows of the training file "
        "as an array, a table or a Dataset, or just their number; labels that they hold are compared. The study "
        f"trained on {bundle.facts.num_examples:,} of them, all but those that were held out ({held_out})"
        f"{_rows_told(bundle)}:"
    )


def _rows_told(bundle: Bundle) -> str:
    if bundle.rows is not None:
        return ", and the bundle knows which"
    return ", `ROWS`, as `subsettune.data.load(bundle.task, DataPaths()).train.rows` has them"


def _is_blind(bundle: Bundle) -> bool:
    phases = resolve(bundle.policy, bundle.recipe, bundle.facts).phases
    return not any(phase.order.observes for phase in phases)


def _yours(bundle: Bundle) -> str:
    """What is left to the reader's code."""
    recipe, policy = bundle.recipe, bundle.policy
    opening = [f"`{p.transition}` where phase {i + 1} opens" for i, p in enumerate(policy.phases)]
    opening = [words for words, p in zip(opening, policy.phases, strict=True) if p.transition != "keep"]
    changes = f" It changes `network` and `optimizer` itself: {joined(opening)}." if opening else ""
    loss = [
        *(["the targets minus their mean, over their standard deviation"] if bundle.task.kind == "regression" else []),
        *([f"labels smoothed by {recipe.label_smoothing:g}"] if recipe.label_smoothing else []),
        *([_CLASS_WEIGHTS] if recipe.class_weights is not None else []),
    ]
    inputs = "images" if recipe.augment.function is None else "inputs"
    also = [
        *([f"{inputs} augmented as `task.recipe.augment` says"] if not recipe.augment.is_off else []),
        *([f"the norm of the gradient clipped to {recipe.grad_clip:g}"] if recipe.grad_clip is not None else []),
        *([f"precision `{recipe.precision}`"] if recipe.precision != "float32" else []),
        *([f"a moving average of the weights (decay {recipe.ema:g}) that is used in the end"] if recipe.ema else []),
    ]
    kind = _LOSSES[bundle.task.kind] if bundle.task.loss is None else f"`{bundle.task.loss}` of the outputs and targets"
    return (
        "Rows, weights and rates are those of `train.run` with the same seed, update by update."
        f"{changes} What an update does is yours: the loss is the mean over the batch of the {kind} times "
        f"`weights` (None: all are 1){_with(loss)}; the optimizer has the settings of `bundle.recipe`{_with(also)}. "
        "The study trained on inputs as `.train.batch(positions)` of its data gives them, scaled and encoded."
    )


def _with(words: Sequence[str]) -> str:
    return f", with {joined(words)}" if words else ""


def _honest(num_phases: int, needs: dict[int, str]) -> str:
    """Which phases other code can follow, which not and why."""
    reasons = [f"{_numbered(_of(needs, reason))} {reason}" for reason in dict.fromkeys(needs.values())]
    others = [index for index in range(num_phases) if index not in needs]
    alone = "No phase is ordinary training that other code could do by itself."
    if others:
        phases = _numbered(others)
        alone = (
            f"{phases[0].upper()}{phases[1:]} is ordinary training on the rows of the table, or on all of them, which "
            "other code can do by itself, but one learning-rate schedule goes through all phases."
        )
    return f"Not by training code of your own alone: {'; '.join(reasons)}. {alone}"


def _of(needs: dict[int, str], reason: str) -> list[int]:
    return [index for index, why in needs.items() if why == reason]


def _numbered(phases: Sequence[int]) -> str:
    """`phase 2`, or `each of the phases 1, 2`: words that go before a verb in the singular."""
    numbers = ", ".join(str(index + 1) for index in phases)
    return f"phase {numbers}" if len(phases) == 1 else f"each of the phases {numbers}"
