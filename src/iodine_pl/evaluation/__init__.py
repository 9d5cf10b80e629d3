"""Scores and pictures of decompositions: tensors in, numbers and pictures out. No Trainer is needed."""
