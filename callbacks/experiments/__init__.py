"""The experiments of the paper, as callbacks for ``test``; they need ``pip install "iodine-pl[experiments]"``."""

from iodine_pl.callbacks.experiments.disentanglement import Disentanglement
from iodine_pl.callbacks.experiments.factor_probe import FactorProbe
from iodine_pl.callbacks.experiments.generalisation import Generalisation
from iodine_pl.callbacks.experiments.held_out import HeldOut
from iodine_pl.callbacks.experiments.multi_modality import MultiModality
from iodine_pl.callbacks.experiments.segmentation import Segmentation

__all__ = ["Disentanglement", "FactorProbe", "Generalisation", "HeldOut", "MultiModality", "Segmentation"]
