"""How the weights are updated: optimizers, learning rate, clipping, and skipped non-finite updates."""

from iodine_pl.optim.adam import TFAdam
from iodine_pl.optim.muon import COEFFICIENTS, Muon, orthogonalized
from iodine_pl.optim.rates import learning_rate_decay, square_root_rule

__all__ = ["COEFFICIENTS", "Muon", "TFAdam", "learning_rate_decay", "orthogonalized", "square_root_rule"]
