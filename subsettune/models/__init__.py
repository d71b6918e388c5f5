"""Networks: the built-in ones, and the user's own by `package.module:function`.

`make` builds the network of a task for the shape of its data and checks that it can be trained.
"""

from __future__ import annotations

from subsettune.models.copies import copy_of, in_training, tensors
from subsettune.models.networks import (
    FOR_TOKENS,
    Shape,
    check_output,
    cnn,
    fresh_input,
    input_dtype,
    layer_by_layer,
    make,
    mlp,
    num_parameters,
    resnet18,
)

__all__ = [
    "FOR_TOKENS",
    "Shape",
    "check_output",
    "cnn",
    "copy_of",
    "fresh_input",
    "in_training",
    "input_dtype",
    "layer_by_layer",
    "make",
    "mlp",
    "num_parameters",
    "resnet18",
    "tensors",
]
