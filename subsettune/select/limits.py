"""How much memory selectors may use, and how many numbers they hold at a time, each with its reason."""

from __future__ import annotations

MEMORY_LIMIT_BYTES = 4 * 2**30  # the same on every machine, so that a study proposes the same policies everywhere
BLOCK_BYTES = 16 * 2**20  # of inputs read at a time: large against the cost of a call, small against the matrix
BLOCK_ROWS = 256  # kcenter on one core, 50,000 x 512, k = 5,000: 64 rows 9.1 s, 256 rows 7.0 s, 1,024 rows 9.7 s
GRADIENT_BYTES = 64 * 2**20  # of gradients by all parameters, example by example, of a block of examples
MOST_ROWS, BLOCK_NUMBERS = 4096, 2**24  # cast to float64 at a time, at most: 128 MiB
PENDING_PICKS = 1024  # picks that a block is measured against at a time: bounds the memory of the product
WEIGHT_TOLERANCE = 1e-3  # relative, of the sum of weights: float32 sums of 50,000 numbers are off by some 1e-5
