"""DeepMind's multi_object_datasets: what their files hold, and how they become HDF5."""
