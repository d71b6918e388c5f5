"""Follow a bundle of scikit-learn's digits in skorch: python examples/skorch_net.py BUNDLE."""

import sys

import torch
from sklearn.datasets import load_digits
from skorch import NeuralNetClassifier

from subsettune import Bundle
from subsettune.integrations.skorch import PolicyCallback


class WeighingNet(NeuralNetClassifier):
    def get_loss(self, y_pred, y_true, X=None, training=False):
        losses = torch.nn.functional.cross_entropy(y_pred, y_true, reduction="none")
        weights = sampler.weights  # of the batch that is trained; None where all are 1
        return (losses if weights is None else losses * torch.from_numpy(weights).to(losses)).mean()


bundle = Bundle.load(sys.argv[1])
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
sampler = bundle.batch_sampler((x, y))
torch.manual_seed(bundle.seed)
net = WeighingNet(
    torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)),
    criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.SGD,
    optimizer__momentum=bundle.recipe.momentum or 0,
    optimizer__weight_decay=bundle.recipe.weight_decay,
    lr=bundle.recipe.lr,
    iterator_train__batch_sampler=sampler,
    iterator_train__batch_size=1,  # what torch's DataLoader wants beside a batch sampler
    max_epochs=1,  # the whole policy
    train_split=None,  # else skorch holds out a fifth, and the rows are those of others
    callbacks=[PolicyCallback(sampler)],
)
net.fit(x, y)
print(sampler.finish())
