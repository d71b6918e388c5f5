"""scikit-learn estimators that train a torch network by a bundle, a policy, or the recipe alone.

    SubsetClassifier(policy="runs/adult-1/bundle").fit(X, y)

They go wherever scikit-learn's own do: pipelines, cross-validation, searches. Needs torch, NumPy, pyarrow and
scikit-learn; neither Ray nor Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from subsettune.errors import MissingPackageError
from subsettune.extras import needed_for
from subsettune.integrations.training import Request, Trained, train, usual_recipe
from subsettune.task import Recipe

with needed_for("subsettune.integrations.sklearn", extra="sklearn"):
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state, validation
    from sklearn.utils.multiclass import check_classification_targets

if not hasattr(validation, "validate_data"):
    raise MissingPackageError(
        'subsettune.integrations.sklearn needs scikit-learn 1.6 or newer. Install it: pip install "subsettune[sklearn]"'
    )
RECIPE_KEYS = ("lr", "epochs", "batch_size", "optimizer", "weight_decay")
MOST_SEED = 2**31 - 1


class _SubsetEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What classifier and regressor have in common."""

    # More than six parameters: scikit-learn takes all settings of an estimator here, each by name.
    def __init__(
        self,
        policy: Any = None,
        *,
        module: Any = None,
        module_options: Mapping[str, Any] | None = None,
        lr: float | None = None,
        epochs: float | None = None,
        batch_size: int | None = None,
        optimizer: str | None = None,
        weight_decay: float | None = None,
        recipe: Mapping[str, Any] | None = None,
        random_state: Any = None,
        time_budget_s: float | None = None,
        device: str = "auto",
        num_threads: int | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.policy = policy
        self.module = module
        self.module_options = module_options
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.recipe = recipe
        self.random_state = random_state
        self.time_budget_s = time_budget_s
        self.device = device
        self.num_threads = num_threads
        self.verbose = verbose

    def _train(self, x: NDArray[Any], labels: NDArray[Any], class_names: tuple[str, ...] = ()) -> Self:
        request = Request(
            policy=self.policy,
            module=self.module,
            module_options=self.module_options,
            recipe=self._given(),
            seed=_seed(self.random_state),
            time_budget_s=self.time_budget_s,
            device=self.device,
            num_threads=self.num_threads,
            tell=self._print if self.verbose else None,
        )
        trained = train(request, x, labels, class_names)
        self._trained: Trained = trained
        self.module_ = trained.network
        self.policy_ = trained.policy
        self.recipe_ = trained.recipe
        self.facts_ = trained.facts
        self.ledger_ = trained.ledger
        self.plain_flops_ = trained.plain_flops
        self.seconds_ = trained.seconds
        self.complete_ = trained.is_complete
        self.limits_ = trained.limits
        self.n_iter_ = trained.updates
        if not trained.is_complete:
            share = trained.ledger.spent / trained.policy.cost(trained.facts)
            warnings.warn(
                f"time_budget_s of {self.time_budget_s:g} ended the training after {share:.0%} of its compute. "
                "The learning rate had not come down yet: give it more time, or a policy of fewer passes.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def usual_recipe(self) -> Recipe:
        """The recipe that `fit` trains by, with all settings; nothing is trained."""
        return usual_recipe(self.policy, self._given())

    def _given(self) -> dict[str, Any]:
        """The settings of the recipe that are not left to the bundle."""
        beside = {key: getattr(self, key) for key in RECIPE_KEYS if getattr(self, key) is not None}
        return {**(self.recipe or {}), **beside}

    def _print(self, line: str) -> None:
        print(f"[{type(self).__name__}] {line}")

    def _outputs(self, x: Any) -> torch.Tensor:
        validation.check_is_fitted(self, "module_")
        return self._trained.outputs(_rows(self, x, reset=False), self.device)


class SubsetClassifier(ClassifierMixin, _SubsetEstimator):  # type: ignore[misc]
    """A network for classes, trained by a policy.

    All rows are trained on. Columns are standardised by their mean and spread; categories must be numbers already
    (`OneHotEncoder`), and nothing may be missing. Weights of rows are not taken: `recipe={"class_weights": "balanced"}`
    weighs classes.

    Args:
        policy: folder of a bundle or a `Bundle`; a `Policy`, a mapping or a JSON file of one; None trains by the recipe
            as it stands. Sizes of subsets are derived from the rows at hand, and examples are chosen from them.
        module: the network: a name of ours (`mlp`), a function or class, or `package.module:function`, of
            (num_features, num_outputs), or a torch module, of which each fit trains a copy. None: the bundle's, else
            `mlp`.
        module_options: keyword arguments of the function, as `{"hidden": [128, 64]}` of `mlp`; beside a bundle they
            replace single ones of its own.
        lr: peak learning rate. This and the next four: None for the bundle's setting, else 0.005, 40, 32 and adamw; a
            policy's own settings stand back behind those that are given.
        epochs: passes over the rows of the recipe as it stands. A policy has passes of its own, which this does not
            change: then it says what `plain_flops_` is, and beside a bundle, which knows, it must be None.
        batch_size: rows per update.
        optimizer: by name, as of study files.
        weight_decay: as the optimizer defines it.
        recipe: further settings by the names of study files, as `{"schedule": "one_cycle", "grad_clip": 1.0}`.
        random_state: seed of weights, order and choice; the same one gives the same bits on a CPU.
        time_budget_s: seconds after which training stops where it is, looked at 1,000 times in a training, and not
            within the choice of a subset. Nothing is made shorter to fit: `complete_` is False, and a warning says so.
        device: `auto`, `cpu`, `cuda` or `cuda:N`; the trained network is kept on the CPU.
        num_threads: CPU threads of torch; None leaves them as they are. They change the bits of what is trained.
        verbose: whether lines tell how far the training is.

    Attributes:
        classes_: (c,) in the order of the probabilities.
        n_features_in_: columns.
        feature_names_in_: their names, where the rows had any.
        module_: the trained network, which takes standardised rows.
        policy_: as it was carried out.
        recipe_: with all settings.
        facts_: number of rows, parameters and FLOPs.
        ledger_: FLOPs that were spent, by purpose; `ledger_.spent` is all of them.
        plain_flops_: FLOPs of the recipe as it stands, in `epochs` passes.
        seconds_: that `fit` took.
        complete_: whether the policy was carried out to its end.
        limits_: sentences on what differs from what the bundle was shown for.
        n_iter_: updates of the optimizer.

    Raises:
        SubsettuneError: from `fit`; most are also a ValueError. `docs/hosts.md` has examples.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 (scikit-learn's name)
        """Train on (n, d) rows and their (n,) classes."""
        x, y = _rows(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have 2 classes at least, got 1 class, {self.classes_[0]}. Give rows of others.")
        return self._train(x, codes, tuple(map(str, self.classes_)))

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """(n, c) probabilities, in the order of `classes_`, in the precision of the network."""
        found: NDArray[np.float32] = self._outputs(X).double().softmax(dim=1).float().numpy()
        return found

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(n,) classes."""
        places = self._outputs(X).argmax(dim=1).numpy()
        found: NDArray[Any] = self.classes_[places]
        return found


class SubsetRegressor(RegressorMixin, _SubsetEstimator):  # type: ignore[misc]
    """A network for values, trained by a policy.

    Arguments and attributes are those of `SubsetClassifier`, but for `classes_`. The loss is the squared error of
    standardised values; predictions are in the units of `y`.
    """

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803 (scikit-learn's name)
        """Train on (n, d) rows and their (n,) or (n, m) values."""
        x, y = _rows(self, X, y, y_numeric=True, multi_output=True)
        return self._train(x, y)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """(n,) or (n, m) float64 values."""
        found: NDArray[Any] = self._outputs(X).numpy()
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _rows(estimator: Any, *arrays: Any, reset: bool = True, **checks: Any) -> Any:
    """Rows, and labels where they are given, as scikit-learn has them, of the width that was trained on."""
    return validation.validate_data(estimator, *arrays, reset=reset, dtype=[np.float64, np.float32], **checks)


def _seed(random_state: Any) -> int:
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        check_random_state(int(random_state))  # refuses what is no seed of scikit-learn's
        return int(random_state)
    return int(check_random_state(random_state).randint(MOST_SEED))
