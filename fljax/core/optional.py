"""Says what brings a package that may be absent.

One table for the errors of imports, for `fljax doctor` and for the extras of pyproject.toml.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple


class Part(NamedTuple):
    """An optional package, the extra that brings it, and its purpose.

    Attributes:
      package: Its name for pip.
      extra: The smallest extra of fljax that brings it; empty where every installation does.
      serves: What needs it, in the plural, as the subject of a sentence.

    Example:
      >>> PARTS["h5py"].extra
      'hdf5'
    """

    package: str
    extra: str
    serves: str


# By the name that is imported. Packages that fljax imports when they are first used, no others:
# what none of it works without (jax, flax, optax, numpy, absl) is not here.
PARTS = {
    # of every installation
    "matplotlib": Part("matplotlib", "", "Plots"),
    "ml_collections": Part("ml_collections", "", "Configurations"),
    "orbax": Part("orbax-checkpoint", "", "Checkpoints"),
    "pyarrow": Part("pyarrow", "", "Tables in CSV, Parquet and Arrow files"),
    "sklearn": Part("scikit-learn", "", "The images of `digits`"),
    "tensorflow_datasets": Part("tensorflow-datasets", "", "Data sets of tensorflow-datasets"),
    "tqdm": Part("tqdm", "", "Bars of progress"),
    "wandb": Part("wandb", "", "Records in Weights & Biases (wandb.mode other than 'disabled')"),
    # of an extra
    "mlflow": Part("mlflow-skinny", "mlflow", "Records in MLflow"),
    "tensorboardX": Part("tensorboardx", "tensorboard", "Records for TensorBoard"),
    "cryptography": Part("cryptography", "privacy", "Ceremonies of secure aggregation"),
    "datasets": Part("datasets", "huggingface", "Data sets of Hugging Face"),
    "flatbuffers": Part("flatbuffers", "deploy", "Exports to StableHLO"),
    "h5py": Part("h5py", "hdf5", "Files in HDF5"),
    "PIL": Part("pillow", "images", "Folders of images"),
    "jax2onnx": Part("jax2onnx", "deploy", "Exports to ONNX"),
    "onnxruntime": Part("onnxruntime", "deploy", "Checks of exports to ONNX"),
    "river": Part("river", "monitoring", "Detectors of drift other than loss_rise"),
    "tensorflow": Part("tensorflow", "tfds", "Data sets that are not prepared as array_record yet"),
}


def remedy(module: str) -> str:
    """Returns the command that brings a package.

    Args:
      module: The name by which it is imported, one of `PARTS`.

    Example:
      >>> remedy("h5py")
      "pip install 'fljax[hdf5]'"
      >>> remedy("sklearn")
      'pip install scikit-learn'
    """
    part = PARTS[module]
    return f"pip install 'fljax[{part.extra}]'" if part.extra else f"pip install {part.package}"


def is_there(module: str) -> bool:
    """Tells if a package is installed, without importing it.

    Args:
      module: The name by which it is imported.

    Example:
      >>> is_there("matplotlib"), is_there("matplotlib_of_mine")
      (True, False)
    """
    return importlib.util.find_spec(module) is not None


@contextlib.contextmanager
def needed(module: str) -> Iterator[None]:
    """Lets an import inside it fail with what the package serves and the command that brings it.

    Args:
      module: The name by which it is imported, one of `PARTS`.

    Raises:
      ImportError: Where the import fails.

    Example:
      >>> with needed("matplotlib"):
      ...     from matplotlib.figure import Figure
      >>> with needed("h5py"):
      ...     import h5py_of_nobody
      Traceback (most recent call last):
      ImportError: Files in HDF5 need h5py: pip install 'fljax[hdf5]'
    """
    try:
        yield
    except ImportError as error:
        part = PARTS[module]
        message = f"{part.serves} need {part.package}: {remedy(module)}"
        raise ImportError(message, name=module) from error
