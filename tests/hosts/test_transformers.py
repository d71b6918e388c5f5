"""The function of docs/own_training.md in transformers: the bits of a plain one. Run by `make test-hosts`."""

from __future__ import annotations

import os

import pytest

if "SUBSETTUNE_HOSTS" not in os.environ:
    pytest.skip("needs transformers, and runs by `make test-hosts`", allow_module_level=True)

from own_hosts import assert_same_bits

pytestmark = pytest.mark.filterwarnings("default")  # transformers's own are not ours to mend


def test_the_bits_of_a_plain_function() -> None:
    assert_same_bits("transformers")
