"""Runs the command line as users do, on sizes that take seconds."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = ROOT / "train.py"

TINY = [
    "--data.num_train=40",
    "--data.num_val=9",
    "--data.num_test=31",
    "--data.batch_size=4",
    "--model.num_iterations=1",
    "--model.latent_size=4",
    "--model.decoder_channels=[4]",
    "--model.encoder_channels=[4]",
    "--model.mlp_sizes=[8]",
    "--trainer.accelerator=cpu",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=2",
]
BAR = "--trainer.enable_progress_bar=false"


def environment():
    """Returns the environment of a user: none of the variables that a distributed run leaves."""
    return {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")}


def start(*arguments, folder, script=TRAIN, **options):
    """Starts ``python train.py ...`` in a folder, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment() | options,
    )


def run(*arguments, folder, script=TRAIN, **options):
    """Runs ``python train.py ...`` to its end and returns what it printed; a failure fails the test."""
    process = start(*arguments, folder=folder, script=script, **options)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output
