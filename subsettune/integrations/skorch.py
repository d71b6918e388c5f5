"""skorch: a net of its kind trained by a bundle.

sampler = bundle.batch_sampler((x, y))
net = NeuralNetClassifier(
    module,
    optimizer=torch.optim.SGD,
    lr=bundle.recipe.lr,
    iterator_train__batch_sampler=sampler,
    iterator_train__batch_size=1,  # what torch's DataLoader wants beside a batch sampler
    max_epochs=1,
    train_split=None,
    callbacks=[PolicyCallback(sampler)],
)
net.fit(x, y)
sampler.finish()

skorch holds out a fifth of what `fit` gets unless `train_split` is None; the rows of the policy would then be those of
other examples, without a word wherever they are in range. Where the policy weighs examples, `get_loss` of the net
multiplies their losses by `sampler.weights`.
"""

from __future__ import annotations

from typing import Any

from subsettune.errors import TrainingFunctionError
from subsettune.extras import needed_for
from subsettune.train.follow.follower import Scheduler
from subsettune.train.follow.sampler import PolicySampler

with needed_for("subsettune.integrations.skorch"):
    from skorch.callbacks import Callback

__all__ = ["PolicyCallback"]


class PolicyCallback(Callback):  # type: ignore[misc]
    """Sets the rates of a policy, carries out its transitions, and counts the updates.

    Args:
        sampler: of the net's `iterator_train`.
    """

    def __init__(self, sampler: PolicySampler) -> None:
        self.sampler = sampler

    def initialize(self) -> PolicyCallback:
        """Begin anew with each fresh module and optimizer."""
        self.scheduler_: Scheduler | None = None
        return self

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:  # noqa: N803
        """Hold the settings of the net against what the policy needs.

        Raises:
            TrainingFunctionError: the net would train on other batches, or on other rows.
        """
        if net.train_split is not None:
            raise TrainingFunctionError(
                "train_split must be None, got one that holds out examples: the rows of the policy would be those of "
                "others. Write train_split=None; what the study held out is not trained on anyway."
            )
        if net.get_params_for("iterator_train").get("batch_sampler") is not self.sampler:
            raise TrainingFunctionError(
                "iterator_train__batch_sampler must be the sampler of the callback, got another or none. Give the net "
                "both: iterator_train__batch_sampler=sampler, callbacks=[PolicyCallback(sampler)]."
            )
        if X is not None:
            self.sampler.check(X if y is None else (X, y))
        if self.scheduler_ is None:
            self.sampler.on_switch(network=net.module_, optimizer=net.optimizer_)
            self.scheduler_ = self.sampler.scheduler(net.optimizer_)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Count the update."""
        if training and self.scheduler_ is not None:
            self.scheduler_.step()
