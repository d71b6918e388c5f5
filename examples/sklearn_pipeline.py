"""A network in a pipeline of scikit-learn, in cross-validation: by the recipe as it stands, and by a policy.

python examples/sklearn_pipeline.py [BUNDLE]    # of a classification; without one, the policy is the one below
"""

import sys

from sklearn.datasets import load_digits
from sklearn.feature_selection import VarianceThreshold
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline

from subsettune import Phase, Policy
from subsettune.integrations.sklearn import SubsetClassifier

# 4 passes over a third of the rows, then 8 over all: the compute of 12 of the recipe's 30 epochs.
POLICY = Policy(phases=(Phase(share=0.33, passes=4), Phase(passes=8)))
settings = {"random_state": 0, "device": "cpu"}
estimators = {
    "recipe": SubsetClassifier(epochs=30, **settings),
    "policy": SubsetClassifier(POLICY, epochs=30, **settings),
}
if len(sys.argv) > 1:
    estimators = {"bundle": SubsetClassifier(sys.argv[1], **settings)}
x, y = load_digits(return_X_y=True)
for name, estimator in estimators.items():
    pipeline = make_pipeline(VarianceThreshold(), estimator)
    found = cross_validate(pipeline, x, y, cv=3, return_estimator=True)
    last = found["estimator"][-1][-1]
    share = last.ledger_.spent / last.plain_flops_
    print(f"{name}: accuracy {found['test_score'].mean():.3f}, {share:.0%} of the recipe's compute")
    print(*last.limits_, sep="\n")
