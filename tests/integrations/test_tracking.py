"""What trackers are told of a study: each setting once, whether it is written down or left at its default."""

from __future__ import annotations

import pytest
from fake_study import STATES, make_view

from subsettune import Found
from subsettune.integrations.tracking import study_params, study_settings
from subsettune.study.another import MAY_CHANGE


@pytest.mark.parametrize("state", STATES)
def test_settings_and_params_share_nothing(state: str) -> None:
    study = Found(make_view(state))
    settings = study_settings(study)
    assert set(settings) == {f"study.{name}" for name in MAY_CHANGE if getattr(study.study.study, name) is not None}
    assert not set(settings) & set(study_params(study))
