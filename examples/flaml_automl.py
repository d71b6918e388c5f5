"""AutoML of FLAML whose learner trains a network by a policy; FLAML searches its learning rate.

python examples/flaml_automl.py [BUNDLE]    # of a classification; without one, the policy is the one below
"""

import sys

from flaml import AutoML
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from subsettune import Phase, Policy
from subsettune.integrations.flaml import SubsetLearner

# 4 passes over a third of the rows, then 8 over all: the compute of 12 of the recipe's 30 epochs.
POLICY = Policy(phases=(Phase(share=0.33, passes=4), Phase(passes=8)))
settings = {"policy": sys.argv[1]} if len(sys.argv) > 1 else {"policy": POLICY, "epochs": 30}


class Learner(SubsetLearner):
    """With settings of its own."""

    settings = settings


x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
automl = AutoML()
automl.add_learner("subset", Learner)
automl.fit(x, y, task="classification", estimator_list=["subset"], time_budget=30, max_iter=5, n_jobs=1, verbose=0)
trained = automl.model.estimator
share = trained.ledger_.spent / trained.plain_flops_
print(f"accuracy {automl.score(x_test, y_test):.3f}, {share:.0%} of the recipe's compute, {automl.best_config}")
print(*trained.limits_, sep="\n")
