"""Writes everything in docs/ that is made from the code; `make docs` runs it. What a study gave is written by demo.py.

python docs/scripts/write.py
"""

from __future__ import annotations

import architecture
import lists
import study_file

if __name__ == "__main__":
    study_file.main()
    lists.main()
    architecture.main()
