"""DeepMind's released weights: a checkpoint of the reference code (TensorFlow 1) read without TensorFlow."""

from iodine_pl.official.reading import Official, read_official

__all__ = ["Official", "read_official"]
