"""The parts of `benchmarks/gpu.py`: what each one checks or measures on the device. No command of its own."""

from __future__ import annotations

from gpu_parts.kit import Part
from gpu_parts.parity import PARITY
from gpu_parts.speed import SPEED
from gpu_parts.turns import TURNS

PARTS: dict[str, Part] = {part.name: part for part in (*PARITY, *TURNS, *SPEED)}
