"""AutoGluon with a network that is trained by the recipe as it stands, and by a policy.

python examples/autogluon_tabular.py [BUNDLE]    # of a classification; without one, the policy is the one below
"""

import sys
import tempfile

from autogluon.tabular import TabularPredictor
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from subsettune import Phase, Policy
from subsettune.integrations.autogluon import SubsetModel

# 4 passes over a third of the rows, then 8 over all: the compute of 12 of the recipe's 30 epochs.
POLICY = Policy(phases=(Phase(share=0.33, passes=4), Phase(passes=8)))
hyperparameters = [{"epochs": 30}, {"epochs": 30, "policy": POLICY}]
if len(sys.argv) > 1:
    hyperparameters = [{"policy": sys.argv[1]}]
train, test = train_test_split(load_breast_cancer(as_frame=True).frame, random_state=0)
with tempfile.TemporaryDirectory() as folder:
    predictor = TabularPredictor(label="target", path=folder, verbosity=0)
    settings = {"time_limit": 300, "num_cpus": 1, "fit_weighted_ensemble": False}
    predictor.fit(train, hyperparameters={SubsetModel: hyperparameters}, **settings)
    board = predictor.leaderboard(test)
    for name, accuracy, seconds in board[["model", "score_test", "fit_time"]].itertuples(index=False):
        trained = predictor._trainer.load_model(name).model[-1]
        share = trained.ledger_.spent / trained.plain_flops_
        print(f"{name}: accuracy {accuracy:.3f}, {share:.0%} of the recipe's compute, {seconds:.2f} s")
        print(*trained.limits_, sep="\n")
