from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subsettune import config
from subsettune.errors import ConfigError
from subsettune.ledger import Ledger

counts = st.integers(0, 10**18)
ledgers = st.builds(Ledger, select=counts, forward=counts, backward=counts, evaluate=counts)


@given(a=ledgers, b=ledgers)
def test_sums_by_purpose(a: Ledger, b: Ledger) -> None:
    total = a + b
    assert total.spent == a.spent + b.spent == a.select + a.train + b.select + b.train
    assert total.total == total.spent + a.evaluate + b.evaluate
    assert total == b + a
    assert a + Ledger() == a


@given(ledger=ledgers)
def test_json_form(ledger: Ledger) -> None:
    assert config.build(Ledger, config.to_plain(ledger)) == ledger


def test_numbers_are_whole_and_not_negative() -> None:
    with pytest.raises(
        ConfigError, match=r"select: select must be 0 or more, got -1.\nforward: forward must be a whole"
    ):
        Ledger(select=-1, forward=0.5)  # type: ignore[arg-type]
