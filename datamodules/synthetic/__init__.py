"""Generators of scenes that follow the specification of the real datasets, and the files that they are written to."""
