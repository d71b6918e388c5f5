"""Carrying out runs: requests and outcomes, in this process or on a Ray cluster."""
