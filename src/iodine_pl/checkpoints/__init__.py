"""Checkpoints: found, loaded, written, passed on."""
