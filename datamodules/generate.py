"""Generates datasets that look like DeepMind's.

iodine generate clevr --count 75120
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from iodine_pl.datamodules.synthetic.clevr import ClevrGenerator
from iodine_pl.datamodules.synthetic.generator import Generator
from iodine_pl.datamodules.synthetic.multi_dsprites import MultiDSpritesGenerator
from iodine_pl.datamodules.synthetic.tetrominoes import TetrominoesGenerator

__all__ = ["GENERATORS"]

GENERATORS: Mapping[str, type[Generator]] = {
    "tetrominoes": TetrominoesGenerator,
    "multi_dsprites": MultiDSpritesGenerator,
    "clevr": ClevrGenerator,
}
"""The generators of the command. Their arguments are its flags, which their docstrings describe."""

if __name__ == "__main__":
    from iodine_pl.cli import main

    sys.exit(main("generate"))
