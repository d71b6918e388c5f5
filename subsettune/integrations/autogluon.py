"""A model for AutoGluon that trains a torch network by a bundle, a policy, or the recipe alone.

    TabularPredictor(label="class").fit(table, hyperparameters={SubsetModel: {"policy": "runs/adult-1/bundle"}})

Hyperparameters are settings of the estimators of `subsettune.integrations.sklearn`.
"""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any, ClassVar

from subsettune.extras import needed_for
from subsettune.integrations.frames import with_encoder
from subsettune.integrations.sklearn import SubsetClassifier, SubsetRegressor
from subsettune.integrations.training import refuse_weights

with needed_for("subsettune.integrations.autogluon", extra="autogluon"):
    from autogluon.common.features.types import R_BOOL, R_CATEGORY, R_FLOAT, R_INT, S_TEXT_AS_CATEGORY, S_TEXT_NGRAM
    from autogluon.core.models import AbstractModel
    from autogluon.core.utils.exceptions import TimeLimitExceeded
    from sklearn.exceptions import ConvergenceWarning

__all__ = ["SubsetModel"]

_LOG = logging.getLogger("autogluon.subsettune")  # below AutoGluon's own, so that its verbosity decides


class SubsetModel(AbstractModel):  # type: ignore[misc]  # AutoGluon has no types
    """A network of `SubsetClassifier` or `SubsetRegressor`; hyperparameters are theirs.

    Sizes are derived for the rows of each training, of which folds have fewer. What AutoGluon leaves of its time is
    `time_budget_s`: a training that it ends is kept as it is, and the log says so. Validation rows are not looked at,
    so that `refit_full` trains on all rows in the same way.
    """

    ag_key: ClassVar[str] = "SUBSETTUNE"
    ag_name: ClassVar[str] = "Subset"
    ag_priority: ClassVar[int] = 0
    seed_name: ClassVar[str] = "random_state"
    default_resources_physical_cores_only: ClassVar[bool] = True
    _supported_problem_types: ClassVar[list[str]] = ["binary", "multiclass", "regression"]
    _default_auxiliary_params_extra: ClassVar[dict[str, Any]] = {
        "valid_raw_types": [R_BOOL, R_INT, R_FLOAT, R_CATEGORY],
        "ignored_type_group_special": [S_TEXT_NGRAM, S_TEXT_AS_CATEGORY],
    }

    def _fit(
        self,
        X: Any,  # noqa: N803 (AutoGluon's name)
        y: Any,
        time_limit: float | None = None,
        sample_weight: Any = None,
        num_cpus: int | None = None,
        num_gpus: float | None = None,
        **kwargs: Any,
    ) -> None:
        start = time.time()
        refuse_weights(sample_weight)
        rows = self.preprocess(X, y=y, is_train=True)
        left = None if time_limit is None else time_limit - (time.time() - start)
        if left is not None and left <= 0:
            raise TimeLimitExceeded
        settings = {"num_threads": num_cpus, **self._get_model_params(), "time_budget_s": left}
        kind = SubsetRegressor if self.problem_type == "regression" else SubsetClassifier
        model = with_encoder(kind(**{"device": "cuda" if num_gpus else "cpu", **settings}))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model = model.fit(rows, y)
        for one in caught:
            _LOG.warning("\t%s", one.message)
        if num_gpus:
            model[-1].set_params(device="auto")  # where it is loaded, there may be none

    def _more_tags(self) -> dict[str, bool]:
        return {"can_refit_full": True}
