"""Reads, writes and downloads files, without knowledge of models or datasets."""
