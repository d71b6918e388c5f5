"""Transitions: what happens to weights and optimizer when a phase starts."""
