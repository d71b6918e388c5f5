"""What a policy saves, and when that has paid for finding it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subsettune.study.results.costs import break_even, saving


def test_saving_and_break_even() -> None:
    assert saving(25, 100) == 0.75
    assert saving(120, 100) == pytest.approx(-0.2)
    assert break_even(1000, 100, 60) == 25
    assert break_even(1001, 100, 60) == 26
    assert break_even(0, 100, 60) == 0
    assert break_even(1000, 100, 100) is None


@given(st.integers(0, 10**18), st.integers(1, 10**16), st.integers(0, 10**16))
def test_break_even_is_the_first_count_that_repays(tuning: int, reference: int, policy: int) -> None:
    found = break_even(tuning, reference, policy)
    if policy >= reference:
        assert found is None
    else:
        assert found is not None
        assert found * (reference - policy) >= tuning
        assert found == 0 or (found - 1) * (reference - policy) < tuning
