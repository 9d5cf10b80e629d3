"""DeepMind's multi_object_datasets: the content of their files, and their conversion to HDF5."""
