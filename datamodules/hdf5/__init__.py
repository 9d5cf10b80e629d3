"""Scenes in HDF5 files: the layout, its writer, and reading whole batches."""
