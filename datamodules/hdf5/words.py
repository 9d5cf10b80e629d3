"""Words in the attributes of HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["fixed", "words_of"]


def fixed(words: str | Sequence[str]) -> NDArray[np.bytes_]:
    """Returns words as an attribute of a fixed length, in UTF-8.

    Those of any length lie in a heap of the file, and HDF5's library can loop without end on a damaged one.
    """
    coded = [word.encode() for word in ([words] if isinstance(words, str) else words)]
    kind = h5py.string_dtype("utf-8", max([1, *map(len, coded)]))
    return np.array(coded[0] if isinstance(words, str) else coded, kind)


def words_of(attribute: Any) -> list[str]:
    """Returns the words of an attribute, of a fixed length or of any."""
    words = np.atleast_1d(attribute).ravel()
    return [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in words]
