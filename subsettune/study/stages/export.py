"""What the winner of a study chose: the subsets that its bundle holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from subsettune.select import Subset
from subsettune.study.context import StudyContext
from subsettune.train.loop import RunJob, SubsetProvider, run
from subsettune.train.randomness import isolated


def winner_subsets(context: StudyContext, winner: str) -> Mapping[int, Subset]:
    """What the phases of the winner choose with the first seed of verification, by index of the phase.

    A choice that only the run can tell is in the checkpoint of the finished run; the others are made anew, with as
    many threads as a run has, because their number changes bits.

    Args:
        context: of the study.
        winner: name of a candidate.
    """
    policy, seed = context.folder.manifest.candidates[winner].policy, context.seeds[0]
    job = RunJob.of(context.task, policy, seed, context.data)
    subsets: dict[int, Subset] = {}
    if SubsetProvider(replace(job, device=torch.device(context.device_kind()))).needs_run:
        device = "auto" if context.device.startswith("cuda") else context.device  # a driver may have no GPU
        options = replace(context.run_options(), device=device)
        subsets = dict(run(context.task, policy, seed, options=options).subsets)
    left = [i for i, phase in enumerate(policy.phases) if not phase.is_full and i not in subsets]
    here = SubsetProvider(job, places=context.options.places)
    with isolated(seed, context.settings.cpus_per_trial):
        subsets |= {index: here.choose(index).subset for index in left}
    return dict(sorted(subsets.items()))
