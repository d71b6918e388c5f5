"""What Gaussian processes here are made of: distances, the Matern correlation, a factor of a covariance.

Source: Rasmussen & Williams 2006, eq. 4.17 and algorithm 2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]
from numpy.typing import NDArray
from scipy.linalg import cholesky

Array = NDArray[np.float64]

P = ParamSpec("P")
T = TypeVar("T")

_JITTER = 1e-8
_SQRT5 = 5**0.5


@cache
def _blas() -> Any:
    return threadpoolctl.ThreadpoolController()


def on_one_thread(function: Callable[P, T]) -> Callable[P, T]:
    """Run with BLAS on one thread, and give the others back afterwards.

    On these small matrices threads only wait for one another (8 times slower next to a busy core, measured), and their
    number changes the last bits, hence the proposals.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        with _blas().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


def factor(kernel: Array, noise: Array) -> Array:
    """(n, n) lower Cholesky factor of a kernel plus the variance of the noise, (n,)."""
    matrix = kernel + np.diag(noise + _JITTER * (1 + kernel.max()))
    return np.asarray(cholesky(matrix, lower=True, check_finite=False))


def distance(a: Array, b: Array, is_category: bool) -> Array:
    """(m, k) squared differences of two columns, or whether their categories differ."""
    difference = a[:, None] - b[None, :]
    return (difference != 0).astype(np.float64) if is_category else difference**2


def matern(squared: Array) -> tuple[Array, Array]:
    """Matern 5/2 correlation at squared scaled distances, and its derivative in them."""
    r = _SQRT5 * np.sqrt(squared)
    decay = np.exp(-r)
    return (1 + r + r**2 / 3) * decay, -(5 / 6) * (1 + r) * decay
