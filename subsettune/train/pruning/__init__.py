"""Greedy forward selection of units: which layers, which units, at what cost, and the smaller network."""
