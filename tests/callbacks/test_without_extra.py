"""The package and all callbacks but the experiments, without scipy, scikit-learn and matplotlib."""

import os

from command import ROOT, run

SCRIPT = """
import sys, warnings
import torchmetrics  # looks for the packages by their metadata, which are there
HIDDEN = ("matplotlib", "scipy", "sklearn")
for name in [name for name in sys.modules if name.partition(".")[0] in (*HIDDEN, "iodine_pl")]:
    del sys.modules[name]
sys.modules |= dict.fromkeys(HIDDEN)

warnings.simplefilter("ignore")

import importlib, pkgutil
import iodine_pl
for module in pkgutil.walk_packages(iodine_pl.__path__, "iodine_pl."):
    if not module.name.startswith("iodine_pl.callbacks.experiments") and not module.name.endswith("__main__"):
        importlib.import_module(module.name)

import numpy as np
from iodine_pl import callbacks
from iodine_pl.evaluation import dci, probe
from helpers import loader, trainer
from helpers import small
kinds = [getattr(callbacks, name) for name in callbacks.__all__]
arguments = {callbacks.LateAveraging: [0]}
run = trainer(sys.argv[1], *(kind(*arguments.get(kind, [])) for kind in kinds), enable_checkpointing=True)
run.fit(small(), loader(), loader())
run.test(small(), loader(), verbose=False)
run.predict(small(), loader())
print(len(kinds), "callbacks ran")

rows = np.zeros((4, 2))
factors = {"shape": np.arange(4)}
for call in (
    lambda: probe.LinearProbe.fit(rows, factors, {"shape": "category"}),
    lambda: dci.dci((rows, factors), (rows, factors), {"shape": "category"}),
    lambda: importlib.import_module("iodine_pl.callbacks.experiments"),
    lambda: importlib.import_module("iodine_pl.callbacks.experiments.common.outcome"),
):
    try:
        call()
    except ImportError as error:
        print("error:", error)
"""


def test_without_the_extra_only_experiments_fail_and_name_it(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    modules = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    said = run(tmp_path, folder=tmp_path, script=tmp_path / "script.py", PYTHONPATH=modules)
    lines = [line for line in said.splitlines() if line.endswith(" ran") or line.startswith("error:")]
    remedy = "pip install iodine-pl[experiments]"
    experiments = f"error: iodine_pl.callbacks.experiments needs matplotlib, sklearn: {remedy}"
    assert lines == [
        "9 callbacks ran",
        f"error: LinearProbe.fit needs sklearn: {remedy}",
        f"error: dci needs sklearn: {remedy}",
        experiments,
        experiments,
    ]
