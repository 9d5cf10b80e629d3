"""IODINE for PyTorch Lightning.

Axes, one letter each, in docstrings and einops patterns alike: ``B`` images, ``K`` slots, ``C`` channels, ``H W``
pixels, ``D`` latent, ``T`` refinement steps, ``L`` true entities.
"""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from iodine_pl.importing import when_used

if find_spec("pytorch_lightning") is None:  # before any module of this package imports it
    raise ImportError(
        "iodine-pl needs pytorch_lightning, which the package lightning does not install: "
        'pip install "pytorch-lightning>=2.6.6". Both can be installed side by side; docs/use_it_elsewhere.md shows '
        "IODINE in a module of lightning.pytorch"
    )

if TYPE_CHECKING:
    from iodine_pl.evaluation.metrics import MeanAdjustedRandIndex, adjusted_rand_index
    from iodine_pl.iodine import IODINE
    from iodine_pl.result import Decomposition, Trace
    from iodine_pl.scene_model import SceneModel
    from iodine_pl.showing import show

__all__ = ["IODINE", "Decomposition", "MeanAdjustedRandIndex", "SceneModel", "Trace", "adjusted_rand_index", "show"]

__getattr__, __dir__ = when_used(
    __name__,
    {
        "IODINE": "iodine_pl.iodine",
        "Decomposition": "iodine_pl.result",
        "MeanAdjustedRandIndex": "iodine_pl.evaluation.metrics",
        "SceneModel": "iodine_pl.scene_model",
        "Trace": "iodine_pl.result",
        "adjusted_rand_index": "iodine_pl.evaluation.metrics",
        "show": "iodine_pl.showing",
    },
)

try:
    __version__ = version("iodine-pl")
except PackageNotFoundError:  # imported from a folder, not installed
    __version__ = "0+unknown"
