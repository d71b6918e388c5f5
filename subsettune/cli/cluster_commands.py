"""Commands about clusters: checking the files that start them."""

from __future__ import annotations

import argparse
import sys

from subsettune.report.patience import Patience


def check_file(options: argparse.Namespace) -> int:
    """Say that a launcher file or a RayJob is sound; its mistakes are an error."""
    with Patience(sys.stderr, "loading packages"):
        from subsettune.study.execute.ray_import import importing_ray

        with importing_ray():
            from subsettune.cluster.check import check

    kind = check(options.file)
    print(f"{options.file}: a sound {kind}.")
    return 0
