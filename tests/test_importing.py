"""A process imports what it needs, and the packages offer the same names as if they had imported all."""

import subprocess
import sys

import pytest
from command import ROOT

import iodine_pl
from iodine_pl import cli, datamodules

PROGRAM = """
import runpy
import sys

runpy.run_path(sys.argv[1], run_name="__mp_main__")  # as a spawned data worker does
import iodine_pl.__main__

for sys.argv[1:] in ["--help"], ["--version"]:
    iodine_pl.__main__.main()
from iodine_pl.datamodules.synthetic import multi_dsprites, shards, tetrominoes

assert not {"torch", "pytorch_lightning"} & {*sys.modules}, "to answer, and to generate sprites"
from iodine_pl.datamodules import loader
from iodine_pl.datamodules.hdf5 import dataset

assert not {"pytorch_lightning", "torchmetrics"} & {*sys.modules}, "to read scenes"
"""


def test_other_processes_import_little():
    subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT / "train.py")], check=True, timeout=120)


@pytest.mark.parametrize("package", [iodine_pl, cli, datamodules])
def test_the_names_are_there(package):
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
        assert name in dir(package)
    assert "__doc__" in dir(package)
    with pytest.raises(AttributeError, match=f"^module '{package.__name__}' has no attribute 'Nothing'$"):
        package.Nothing  # noqa: B018
