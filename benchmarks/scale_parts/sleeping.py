"""A training function that trains nothing: it sleeps for as long as it is told, and reports as often."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np

from subsettune import Run

LOG = "SUBSETTUNE_SCALE_LOG"
REFERENCE_UPDATES = 400
NOISE = 0.003
TOP, RATE = 0.98, 2.0  # accuracy after ever more training, and how fast it is neared, in references


def worth(num_updates: int, seed: int) -> float:
    """Accuracy of a made-up training; a third of the compute reaches that of the reference less 0.01."""
    noise = np.random.default_rng([seed, num_updates]).normal(0, NOISE)
    return TOP - 0.02 * math.exp(-RATE * num_updates / REFERENCE_UPDATES) + float(noise)


def sleep(run: Run) -> None:
    """Sleep for `run.options["seconds"]` in all, with `run.options["reports"]` points on the way, evenly spaced.

    The number of the process and the time of the end go into the file that `LOG` names, if it does.
    """
    seconds, reports = float(run.options["seconds"]), int(run.options["reports"])
    wanted = [round(run.total_steps() * (i + 1) / (reports + 1)) for i in range(reports)]
    done = 0
    for done, _ in enumerate(run.batches(), start=1):
        if done in wanted:
            time.sleep(seconds / (reports + 1))
            run.report(accuracy=worth(done, run.seed))
    time.sleep(seconds / (reports + 1))
    if LOG in os.environ:  # no option: a file that an option names is part of what is trained, and must not change
        with Path(os.environ[LOG]).open("a") as log:
            log.write(f"{os.getpid()} {time.time()}\n")
    run.finish(validation=worth(done, run.seed), test=worth(done, run.seed + 1))
