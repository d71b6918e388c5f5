"""Choosing the examples of a run's phases: the networks that selectors ask for, and shared rankings."""
