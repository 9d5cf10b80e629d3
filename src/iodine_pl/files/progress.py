"""The progress bar of long work."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

__all__ = ["progress_bar"]


def progress_bar(iterable: Any = None, **arguments: Any) -> tqdm[Any]:
    """Makes tqdm's bar on standard error. In a log, where each change of it is a line, it changes every ten seconds.

    Args:
        iterable: whose items are counted; None: ``update`` is called.
        arguments: of ``tqdm.tqdm``.
    """
    bar: tqdm[Any] = tqdm(iterable, mininterval=0.1 if sys.stderr.isatty() else 10.0, **arguments)
    return bar
