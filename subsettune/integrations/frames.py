"""Tables of hosts that take them as they are, as the numbers that a network needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from subsettune.extras import needed_for

with needed_for("subsettune.integrations.frames", extra="sklearn"):
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder

MOST_CATEGORIES = 100  # of a column that have a number of their own; the rarer ones share one


def with_encoder(estimator: Any) -> Pipeline:
    """An estimator that takes DataFrames with categories and missing numbers.

    Categories become one-hot, those that training had not seen zeros; a missing number the median of its column, with a
    further column that says so.
    """
    numbers = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    names = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=False, dtype=np.float32
    )
    encoder = ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("names", names, make_column_selector(dtype_exclude="number")),
        ],
        sparse_threshold=0.0,
    )
    return make_pipeline(encoder, estimator)
