"""A learner for FLAML that trains a torch network by a bundle, a policy, or the recipe alone.

    class Learner(SubsetLearner):
        settings = {"policy": "runs/adult-1/bundle"}

    automl = AutoML()
    automl.add_learner("subset", Learner)
    automl.fit(x, y, task="classification", estimator_list=["subset"], time_budget=60)

FLAML searches the learning rate, in trials of whatever sizes; each derives the policy for its rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from subsettune.extras import needed_for
from subsettune.integrations.frames import with_encoder
from subsettune.integrations.sklearn import SubsetClassifier, SubsetRegressor
from subsettune.integrations.training import refuse_weights

with needed_for("subsettune.integrations.flaml", extra="flaml"):
    from flaml import tune
    from flaml.automl.model import BaseEstimator

__all__ = ["SubsetLearner"]

LEAST_BUDGET_S = 1e-3  # where FLAML has no time left, and wants a model all the same: one update
LR_FACTORS = (0.25, 4.0)


class SubsetLearner(BaseEstimator):  # type: ignore[misc]  # FLAML has no types
    """A network of `SubsetClassifier` or `SubsetRegressor`, whose learning rate FLAML searches around the recipe's.

    Settings are theirs: a subclass gives them in `settings`, or `custom_hp` each as `{"domain": value, "init_value":
    value}`; without `init_value` FLAML leaves it out of its first trial, and of all where `max_iter` is 1. Sizes are
    derived for the rows of each trial, of which FLAML's samples and folds have fewer. What FLAML leaves of its time is
    `time_budget_s` of a trial; the final training has none.
    """

    settings: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def search_space(cls, data_size: Any, task: Any, **params: Any) -> dict[str, Any]:
        """`lr_factor`, by which the learning rate of the bundle or recipe is multiplied; the first trial has 1."""
        return {"lr_factor": {"domain": tune.loguniform(*LR_FACTORS), "init_value": 1.0}}

    def config2params(self, config: dict[str, Any]) -> dict[str, Any]:
        """FLAML's settings, and those of the class."""
        given = {"random_state": 0, **self.settings, **super().config2params(config)}
        threads = given.pop("n_jobs", None)
        return given if threads is None or threads < 1 else {"num_threads": threads, **given}

    def fit(
        self,
        X_train: Any,  # noqa: N803 (FLAML's name)
        y_train: Any,
        budget: float | None = None,
        free_mem_ratio: float = 0,
        **kwargs: Any,
    ) -> float:
        """Train within the budget, in seconds, and return the seconds that it took.

        Raises:
            ConfigError: there are weights of rows.
        """
        start = time.time()
        refuse_weights(kwargs.get("sample_weight"))
        settings = dict(self.params)
        factor = settings.pop("lr_factor", 1.0)
        kind = SubsetClassifier if self._task.is_classification() else SubsetRegressor
        estimator = kind(**settings, time_budget_s=None if budget is None else max(budget, LEAST_BUDGET_S))
        if factor != 1.0:
            estimator.set_params(lr=factor * estimator.usual_recipe().lr)
        self._model = (with_encoder(estimator) if hasattr(X_train, "columns") else estimator).fit(X_train, y_train)
        return time.time() - start
