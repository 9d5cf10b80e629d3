"""Baselines for comparison with IODINE, with the same interface."""

from iodine_pl.baselines.rnem import RNEM
from iodine_pl.baselines.vae import VAE

__all__ = ["RNEM", "VAE"]
