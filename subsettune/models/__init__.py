"""Networks: the built-in ones, and the user's own by `package.module:function`."""

from __future__ import annotations

from subsettune.models.networks import (
    FOR_TOKENS,
    Shape,
    check_output,
    cnn,
    fresh_input,
    input_dtype,
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
    "fresh_input",
    "input_dtype",
    "make",
    "mlp",
    "num_parameters",
    "resnet18",
]
