"""What a base install leaves out: `pip install subsettune` follows bundles, and needs numpy, pyarrow and torch alone.

Studies, named data sets, images and reports want more. That is imported where it is used, and a package that is not
there is told in one sentence, with the line that installs it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from subsettune.errors import MissingPackageError

# What code imports, what pip calls it, and the extra that brings it. A test holds them to pyproject.toml.
PACKAGES: Mapping[str, tuple[str, str]] = {
    "autogluon": ("autogluon.tabular", "autogluon"),
    "flaml": ("flaml", "flaml"),
    "PIL": ("pillow", "images"),
    "torchvision": ("torchvision", "images"),
    "accelerate": ("accelerate", "accelerate"),
    "filelock": ("filelock", "tune"),
    "jsonschema": ("jsonschema", "tune"),
    "keras": ("keras", "keras"),
    "jinja2": ("jinja2", "tune"),
    "lightning": ("lightning", "lightning"),
    "markupsafe": ("markupsafe", "tune"),
    "mlflow": ("mlflow", "mlflow"),
    "optuna": ("optuna", "tune"),
    "pandas": ("pandas", "tune"),
    "platformdirs": ("platformdirs", "tune"),
    "plotly": ("plotly", "tune"),
    "ray": ("ray", "tune"),
    "rich": ("rich", "tune"),
    "ruamel": ("ruamel.yaml", "tune"),
    "scipy": ("scipy", "tune"),
    "skorch": ("skorch", "skorch"),
    "sklearn": ("scikit-learn", "tune"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "threadpoolctl": ("threadpoolctl", "tune"),
    "transformers": ("transformers", "transformers"),
    "wandb": ("wandb", "wandb"),
}


@contextlib.contextmanager
def needed_for(what: str, *, extra: str | None = None) -> Iterator[None]:
    """Import packages of an extra inside it: one that is missing is told as what `what` needs.

    Args:
        what: subject of the sentence: "data set 'digits'", "subsettune.tune".
        extra: that brings all of it, where it is another one than the package's own.

    Raises:
        MissingPackageError: a package of an extra is not installed. Other failed imports are left as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in PACKAGES:
            raise
        package, usual = PACKAGES[name]
        advice = f'Install it: pip install "subsettune[{extra or usual}]"'
        raise MissingPackageError(f"{what} needs {package}, which is not installed. {advice}") from error
