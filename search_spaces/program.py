"""A training program of one's own: a linear classifier of the digits, in NumPy alone. See program.yaml."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

import subsettune

images, labels = load_digits(return_X_y=True)
images, truth = images / 16, np.eye(10)[labels]
held_out = np.random.default_rng(0).permutation(len(labels))
test, validation, train = np.split(held_out, [540, 897])  # 540, 357 and 900 rows

run = subsettune.session()  # what is to be done: the batches of a policy, and its rates
weights = np.zeros((64, 10))
for numbers, factors in run.batches():  # of the 900 examples, from 0; factors of their losses, or None for 1
    rows = train[numbers]
    scores = images[rows] @ weights
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    errors = likely / likely.sum(axis=1, keepdims=True) - truth[rows]
    errors *= 1 if factors is None else factors[:, None]
    weights -= run.recipe.lr * run.lr_factor * images[rows].T @ errors / len(rows)


def accuracy(rows: np.ndarray) -> float:
    """Share of some rows that are told right."""
    return float(((images[rows] @ weights).argmax(axis=1) == labels[rows]).mean())


run.finish(validation=accuracy(validation), test=accuracy(test))
