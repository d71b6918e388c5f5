"""The command line: parse, one call, print."""

from __future__ import annotations

from subsettune.cli.commands import main

__all__ = ["main"]
