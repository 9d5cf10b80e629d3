"""The experiments of the paper, as callbacks for ``test``; they need ``pip install "iodine-pl[experiments]"``."""

from iodine_pl.callbacks.experiments.factor_probe import FactorProbe
from iodine_pl.callbacks.experiments.segmentation import Segmentation

__all__ = ["FactorProbe", "Segmentation"]
