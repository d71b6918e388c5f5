"""`python -m subsettune.cli`: as the command `subsettune`."""

from __future__ import annotations

import sys

from subsettune.cli import main

if __name__ == "__main__":
    sys.exit(main())
