"""What has to be there while Ray is imported."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from subsettune.loggers import quieted

WIDGETS = "ray.widgets.util"  # in a notebook it asks, while Ray is imported, for a package that nothing here needs


@contextlib.contextmanager
def importing_ray() -> Iterator[None]:
    """Import Ray inside it: with a home folder, which containers may lack, and without a call for widgets."""
    _provide_home()
    with quieted(WIDGETS, level=logging.WARNING):
        yield


def _provide_home() -> None:
    """Give Ray a home folder where this user has none: it asks for one while it is imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
