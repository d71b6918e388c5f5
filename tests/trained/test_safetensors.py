"""Weights as safetensors: what the package of that name wrote is read, and written again byte for byte."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from places import ROOT

from subsettune.errors import ModelError
from subsettune.trained import safetensors

# Written by safetensors 0.8.0: one tensor of each type, a scalar, an empty one, and a name beyond ASCII.
FIXTURE = (ROOT / "tests" / "fixtures" / "weights.safetensors").read_bytes()


def test_what_the_package_wrote_is_read_and_written_the_same() -> None:
    found = safetensors.parse(FIXTURE, "weights")
    assert {tensor.dtype for tensor in found.values()} == set(safetensors.TYPES.values())
    assert torch.equal(found["5.bfloat16"], torch.arange(6).reshape(2, 3).to(torch.bfloat16))
    assert torch.equal(found["scalar"], torch.tensor(2.5))
    assert found["empty"].shape == (0, 3)
    assert torch.equal(found["größe"], torch.tensor([0.5, -1.0]))
    assert safetensors.dump(dict(reversed(found.items()))) == FIXTURE


def test_views_and_tied_weights_are_written_whole() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    found = safetensors.parse(safetensors.dump({"t": whole.t(), "part": whole[1:, ::2], "again": whole}), "w")
    assert torch.equal(found["t"], whole.t())
    assert torch.equal(found["part"], whole[1:, ::2])
    assert torch.equal(found["again"], whole)


def test_metadata_of_other_programs_are_passed_over() -> None:
    header = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    raw = len(header).to_bytes(8, "little") + header + b"\0\0\x80?"
    assert safetensors.parse(raw, "w")["a"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"x": 1},
            "a of the network's state must be a tensor, got 'dict'. Keep it in a buffer, or write it by code of",
        ),
        (torch.zeros(2, dtype=torch.complex64), "bool, got 'complex64'. Convert it."),
        (torch.zeros(2, 2).to_sparse(), "bool, got 'sparse_coo'. Convert it."),
    ],
)
def test_what_the_format_cannot_hold_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match="network's state") as caught:
        safetensors.dump({"a": value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"abc",
        FIXTURE[:40],
        FIXTURE[:-1],
        b"\xff" * 16,
        (2).to_bytes(8, "little") + b"[]",
        FIXTURE[:9] + b"\xff" * 99,
    ],
)
def test_damaged_files_are_told(raw: bytes) -> None:
    with pytest.raises(
        ModelError, match=r"^w is damaged, or no safetensors file: .*\. Copy the model anew, or save it"
    ):
        safetensors.parse(raw, "w")
