"""Tasks: what is trained (data, model, recipe), how it is judged (metric), and what counts as matched (tolerance).

Frozen values without torch; `subsettune.data.load` and `subsettune.models.make` turn them into tensors and networks.
"""

from subsettune.task.data import NO_DATA, Csv, Data
from subsettune.task.recipe import OPTIMIZER_KEYS, RECIPE_KEYS, Augment, Recipe
from subsettune.task.split import SPLIT_COLUMNS, Corruption, Split
from subsettune.task.task import NO_MODEL, OWN_KEYS, TOLD, ExampleFlops, Model, Task

__all__ = [
    "NO_DATA",
    "NO_MODEL",
    "OPTIMIZER_KEYS",
    "OWN_KEYS",
    "RECIPE_KEYS",
    "SPLIT_COLUMNS",
    "TOLD",
    "Augment",
    "Corruption",
    "Csv",
    "Data",
    "ExampleFlops",
    "Model",
    "Recipe",
    "Split",
    "Task",
]
