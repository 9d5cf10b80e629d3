"""Scores and pictures of decompositions: tensors in, numbers and pictures out. Nothing here knows a Trainer."""
