"""Every registry: names that load, one line each, the one sentence for what is unknown."""

from __future__ import annotations

import pytest

from subsettune import registry
from subsettune.errors import ConfigError
from subsettune.registry import METRICS, MODELS, OPTIMIZERS, ORDERS, SCHEDULES, SELECTORS, TRANSITIONS, Registry

ALL = (SELECTORS, ORDERS, TRANSITIONS, MODELS, OPTIMIZERS, SCHEDULES)


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.what)
def test_every_name_loads_and_says_what_it_is(known: Registry) -> None:
    assert len(known) == len(known.names()) == len(set(known))
    for name, about in known.summaries().items():
        assert name in known
        assert callable(known[name])
        assert about
        assert "\n" not in about
        assert known.code_of(name) is None


@pytest.mark.parametrize("known", ALL, ids=lambda known: known.what)
def test_what_is_unknown_is_told_with_the_known_ones(known: Registry) -> None:
    assert "nothing" not in known
    with pytest.raises(KeyError):
        _ = known["nothing"]
    with pytest.raises(ConfigError) as caught:
        known.load("nothing")
    own = f" or {known.user_code}" if known.user_code else ""
    assert str(caught.value) == f"{known.what} must be one of {', '.join(known)}{own}, got 'nothing'."


def test_selectors_have_the_names_that_they_are_registered_by() -> None:
    assert [cls.name for cls in SELECTORS.values()] == [*SELECTORS]


@pytest.mark.parametrize("known", [SELECTORS, ORDERS, TRANSITIONS], ids=lambda known: known.what)
def test_two_packages_may_not_give_one_name(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(iter(known))
    monkeypatch.setattr(registry, "_entry_points", lambda *_: (("new", "a:B"), ("new", "c:D")))
    with pytest.raises(
        ConfigError, match=rf"^{known.what} 'new' of a:B and c:D has the name of another. Uninstall or "
    ):
        known.names()
    monkeypatch.setattr(registry, "_entry_points", lambda *_: ((first, "a:B"),))
    with pytest.raises(ConfigError, match=rf"^{known.what} '{first}' of a:B has the name of another"):
        known.names()


def test_metrics_have_words() -> None:
    assert {metric.task for metric in METRICS.values()} == {"classification", "regression"}
    assert all(metric.words for metric in METRICS.values())
