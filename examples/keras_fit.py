"""Follow a bundle of scikit-learn's digits in Keras 3 on torch: python examples/keras_fit.py BUNDLE."""

import os
import sys

os.environ["KERAS_BACKEND"] = "torch"

import keras
from sklearn.datasets import load_digits

from subsettune import Bundle
from subsettune.integrations.keras import PolicyCallback

bundle = Bundle.load(sys.argv[1])
x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
keras.utils.set_random_seed(bundle.seed)
model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
model.compile(
    optimizer=keras.optimizers.SGD(bundle.recipe.lr, momentum=bundle.recipe.momentum or 0),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
sampler = bundle.batch_sampler((x, y))
policy = PolicyCallback(sampler, model)
model.fit(policy.data(x, y), epochs=1, callbacks=[policy], verbose=0)  # one epoch: the whole policy
print(sampler.finish())
model.save("digits.keras")
