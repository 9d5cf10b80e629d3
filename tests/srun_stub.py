"""Replaces ``srun`` in test_slurm: runs one task, and sends it SIGTERM if it waits in the middle of a batch."""

import os
import signal
import sys
import time
from pathlib import Path

from command import TRAIN, Command

if __name__ == "__main__":
    assert sys.argv[1] == "iodine"
    task = Command([TRAIN, *sys.argv[2:]], os.getcwd(), dict(os.environ), os.environ["OUTPUT"], 0, os.environ["FORKED"])
    while task.poll() is None:
        if Path("waits").exists():
            task.send_signal(signal.SIGTERM)
            Path("waits").rename("waited")
            Path("go").touch()
        time.sleep(0.02)
    sys.exit(task.wait())
