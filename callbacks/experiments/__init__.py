"""The experiments of the paper, as callbacks for ``test``.

They need ``pip install "iodine-pl[experiments]"``; without it, importing them raises an ImportError that says so.
"""

from iodine_pl.callbacks.experiments.disentanglement import Disentanglement
from iodine_pl.callbacks.experiments.factor_probe import FactorProbe
from iodine_pl.callbacks.experiments.generalization import Generalization
from iodine_pl.callbacks.experiments.held_out import HeldOut
from iodine_pl.callbacks.experiments.multi_modality import MultiModality
from iodine_pl.callbacks.experiments.segmentation import Segmentation

__all__ = ["Disentanglement", "FactorProbe", "Generalization", "HeldOut", "MultiModality", "Segmentation"]
