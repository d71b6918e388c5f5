"""Weights as a safetensors file: a header of JSON with name, type and shape of each tensor, then their numbers.

The format is that of https://github.com/huggingface/safetensors, byte for byte what its package writes: eight bytes
with the length of the header, the header, and the tensors one after the other, the widest types first, then by name.
Nothing in it is code.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from subsettune.config import must
from subsettune.errors import ModelError

# In the order in which the package writes tensors of each.
TYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {kind: name for name, kind in TYPES.items()}
_ORDER = tuple(TYPES)
_METADATA = "__metadata__"
_LENGTH = struct.Struct("<Q")
AGAIN = "Copy the model anew, or save it again."


def dump(tensors: Mapping[str, Tensor]) -> bytes:
    """The file that holds some tensors.

    Args:
        tensors: by name, dense, on any device; one that is a part of another is written whole.

    Raises:
        ModelError: what stands under a name is no tensor, or of a type that the format has not.
    """
    for name, value in tensors.items():
        _check(name, value)
    names = sorted(tensors, key=lambda name: (_ORDER.index(NAMES[tensors[name].dtype]), name))
    header: dict[str, Any] = {}
    parts, end = [], 0
    for name in names:
        tensor = tensors[name].detach().cpu().contiguous()
        begin, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    told = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    told += b" " * (-len(told) % 8)
    return b"".join([_LENGTH.pack(len(told)), told, *parts])


def _check(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        advice = "Keep it in a buffer, or write it by code of your own."
        raise ModelError(must(f"{name} of the network's state", "a tensor", type(value).__name__, advice))
    if value.dtype not in NAMES or value.layout != torch.strided:
        known = ", ".join(str(kind).removeprefix("torch.") for kind in NAMES)
        got = str(value.dtype if value.layout == torch.strided else value.layout).removeprefix("torch.")
        raise ModelError(must(f"{name} of the network's state", f"a dense tensor of {known}", got, "Convert it."))


def parse(raw: bytes, source: str) -> dict[str, Tensor]:
    """The tensors that the bytes of a file hold, on the CPU.

    Args:
        raw: the file.
        source: its name, for the message.

    Raises:
        ModelError: it is damaged, or no such file.
    """
    try:
        (length,) = _LENGTH.unpack_from(raw)
        header = json.loads(raw[_LENGTH.size : _LENGTH.size + length])
        header.pop(_METADATA, None)
        content = memoryview(raw)[_LENGTH.size + length :]
        return {name: _tensor(name, about, content) for name, about in header.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{source} is damaged, or no safetensors file: {error}. {AGAIN}") from error


def _tensor(name: str, about: Mapping[str, Any], content: memoryview) -> Tensor:
    kind, shape, (begin, end) = TYPES[about["dtype"]], about["shape"], about["data_offsets"]
    width = torch.empty(0, dtype=kind).element_size()
    if not 0 <= begin <= end <= len(content) or end - begin != width * math.prod(shape):
        raise ValueError(f"{name} does not lie in it")
    part = bytearray(content[begin:end])  # a copy, which torch may write to
    return torch.frombuffer(part, dtype=kind).reshape(shape) if part else torch.empty(shape, dtype=kind)
