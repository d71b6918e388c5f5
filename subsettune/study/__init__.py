"""Studies: search, simulation, verification, and their records."""

from subsettune.study.simulate import Simulation, simulate

__all__ = ["Simulation", "simulate"]
