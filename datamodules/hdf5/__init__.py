"""Scenes in HDF5 files: the layout, its writer, the layouts of other projects, and reading whole batches."""
