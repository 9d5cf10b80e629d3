"""IODINE for PyTorch Lightning.

Axes, one letter each, in docstrings and einops patterns alike: ``B`` images, ``K`` slots, ``C`` channels, ``H W``
pixels, ``D`` latent, ``T`` refinement steps, ``L`` true entities.
"""

from iodine_pl.evaluation.metrics import MeanAdjustedRandIndex, adjusted_rand_index
from iodine_pl.iodine import IODINE
from iodine_pl.result import Decomposition, Trace
from iodine_pl.scene_model import SceneModel

__all__ = ["IODINE", "Decomposition", "MeanAdjustedRandIndex", "SceneModel", "Trace", "adjusted_rand_index"]
