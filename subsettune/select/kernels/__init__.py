"""Numerical cores of the selectors: pure functions of tensors, each with a slow oracle in the tests."""
