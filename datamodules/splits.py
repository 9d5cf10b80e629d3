"""Divides the scenes of a dataset into training, validation and test, without reading an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iodine_pl.datamodules.hdf5.dataset import SceneDataset
from iodine_pl.datamodules.hdf5.errors import SceneFileError

__all__ = ["Selection", "all_for_test", "cut", "excluded_codes"]


class Selection(NamedTuple):
    """Selects scenes: those with ``min_objects`` to ``max_objects`` objects and without an object that has all factors
    of ``exclude``. With ``test_split="excluded"`` the test has only the scenes with such an object."""

    min_objects: int | None = None
    max_objects: int | None = None
    exclude: Mapping[str, Any] | None = None
    test_split: Literal["same", "excluded"] = "same"

    def __str__(self) -> str:
        words = [f"at least {self.min_objects} objects"] if self.min_objects is not None else []
        words += [f"at most {self.max_objects} objects"] if self.max_objects is not None else []
        words += [f"no object with {dict(self.exclude)}"] if self.exclude else []
        return " and ".join(words) or "any scene"


def cut(
    dataset: SceneDataset, num_train: int | None, num_val: int, num_test: int, selection: Selection
) -> dict[str, NDArray[np.int64]]:
    """Returns the positions of each split, increasing.

    Training has the selected scenes among the first ``num_train`` records, validation the next ``num_val`` selected
    scenes, and test the ``num_test`` after them. If the file has splits of its own, this holds within each of them.
    Training records that are not in the dataset are in no split.

    Args:
        dataset: the dataset to divide.
        num_train: number of records to select from for training; None: all but those of validation and test.
        num_val, num_test: numbers of scenes.
        selection: which scenes to select.

    Raises:
        SceneFileError: if there are too few scenes, or a factor is unknown.
    """
    objects = _number_passes(dataset, selection)
    held_out = _has_excluded(dataset, selection)
    counts = objects & ~held_out
    for_test = objects & held_out if selection.test_split == "excluded" else counts
    if dataset.splits:
        pools = {name: dataset.splits.get(name, np.arange(0)) for name in ("train", "val", "test")}
        train = pools["train"] if num_train is None else pools["train"][:num_train]
        val, test = pools["val"], pools["test"]
        wanted = {"train": num_train or 0, "val": num_val, "test": num_test}
        splits = {"train": train[counts[train]], "val": val[counts[val]][:num_val]}
        splits["test"] = test[for_test[test]][:num_test]
        short = {name: len(pools[name]) for name in pools if len(pools[name]) < wanted[name]}
        if short:
            raise SceneFileError(
                f"{_where(dataset)} has the splits {short}, fewer than num_train={num_train}, num_val={num_val}, "
                f"num_test={num_test} ask for. Ask for fewer"
            )
    else:
        records = len(dataset) - num_val - num_test if num_train is None else num_train - dataset.first
        if num_train is None and records + dataset.first < 1:
            raise SceneFileError(
                f"{_where(dataset)} has {len(dataset)} scenes, and num_val={num_val} and num_test={num_test} leave "
                "none for training. Lower them"
            )
        if records + dataset.first < 1 or records + num_val + num_test > len(dataset):
            raise SceneFileError(
                f"{_where(dataset)} has {len(dataset)} images, but num_train={num_train}, num_val={num_val}, "
                f"num_test={num_test} need {max(records, 1) + num_val + num_test}. Ask for fewer"
            )
        after = np.arange(records, len(dataset))
        splits = {"train": np.flatnonzero(counts[:records]), "val": after[counts[after]][:num_val]}
        after = after[after > splits["val"][-1]] if num_val and len(splits["val"]) else after
        splits["test"] = after[for_test[after]][:num_test]
        splits = {name: at + dataset.first for name, at in splits.items()}
    for name, asked in (("train", 0 if dataset.first else 1), ("val", num_val), ("test", num_test)):
        if len(splits[name]) < asked:
            condition = (
                "only scenes with an excluded object" if name == "test" and for_test is not counts else selection
            )
            left = f"of {len(dataset)} records {len(splits[name])} are left for {name} ({condition})"
            raise SceneFileError(
                f"{_where(dataset)}: {left}, but num_{name}={num_train if name == 'train' else asked}. Ask for fewer, "
                "or give a larger file"
            )
    return splits


def all_for_test(dataset: SceneDataset) -> dict[str, NDArray[np.int64]]:
    """Returns splits with all scenes in the test split."""
    none = np.arange(0)
    return {"train": none, "val": none, "test": np.arange(len(dataset))}


def _where(dataset: SceneDataset) -> str:
    files = dataset.files
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _number_passes(dataset: SceneDataset, selection: Selection) -> NDArray[np.bool_]:
    passes = np.ones(len(dataset), dtype=bool)
    if selection.min_objects is None and selection.max_objects is None:
        return passes
    count = dataset.small("num_objects")
    if count is None:
        raise SceneFileError(
            f"{_where(dataset)} does not say how many objects its scenes have: leave out min_objects and max_objects"
        )
    if selection.min_objects is not None:
        passes &= count >= selection.min_objects
    if selection.max_objects is not None:
        passes &= count <= selection.max_objects
    return passes


def _has_excluded(dataset: SceneDataset, selection: Selection) -> NDArray[np.bool_]:
    """Tells for every scene whether an object has the excluded combination of factors."""
    if not selection.exclude:
        if selection.test_split == "excluded":
            raise SceneFileError(
                "test_split is 'excluded', but exclude is not set: give it, for example {shape: sphere}"
            )
        return np.zeros(len(dataset), dtype=bool)
    matches: NDArray[np.bool_] | None = None
    for name, value in selection.exclude.items():
        values = dataset.small(name)
        if values is None or values.ndim < 2:
            raise SceneFileError(
                f"{_where(dataset)} has no factor {name} to exclude by, but {', '.join(dataset.factors) or 'none'}"
            )
        equal = np.isclose(values, _code(dataset, name, value)).reshape(*values.shape[:2], -1).all(axis=2)
        matches = equal if matches is None else matches & equal
    assert matches is not None
    return np.asarray(matches[:, 1:].any(axis=1))


def excluded_codes(dataset: SceneDataset, selection: Selection) -> dict[str, Any]:
    """Returns the excluded factors, with names of categories replaced by their codes.

    Raises:
        SceneFileError: if a name is unknown.
    """
    return {name: _code(dataset, name, value) for name, value in (selection.exclude or {}).items()}


def _code(dataset: SceneDataset, factor: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = dataset.names(factor)
    if value not in names:
        known = ", ".join(filter(None, names)) or "numbers only"
        raise SceneFileError(f"{_where(dataset)}: factor {factor} has no value {value}, but {known}")
    return names.index(value)
