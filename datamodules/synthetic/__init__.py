"""Generators of scenes that follow the specification of the real datasets, and the writing of their files."""
