"""Generators of scenes that follow the specification of the real datasets."""

__all__: list[str] = []
