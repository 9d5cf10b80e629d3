"""Runs a list of jobs in slices of some minutes; each slice continues where the last one ended, in any process.

Each job runs in a process forked from this one, so that its GPU memory is freed at its end and the libraries are
imported once. This process itself must not use the GPU, since forked processes could then not use it.
"""

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from iodine_pl.cli.errors import sentence_of
from iodine_pl.files.atomic import written_beside

GRACE = 25.0  # seconds before the end of a slice at which its job must save


class Job(NamedTuple):
    """Is run once; its result goes into the record."""

    name: str
    function: Callable
    """Takes the record, and returns a result for JSON."""
    resumes: bool = False
    """Whether it saves at SIGTERM and continues from there; otherwise it is given up after two interruptions."""


class Record:
    """Keeps the results of the jobs in one file, which is complete at any moment.

    Args:
        path: the file; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        new = {"results": {}, "cut": {}, "slices": []}
        self.content = json.loads(path.read_text()) if path.exists() else new

    @property
    def results(self) -> dict:
        return self.content["results"]

    def save(self) -> None:
        with written_beside(self.path) as partial:
            partial.write_text(json.dumps(self.content, indent=1) + "\n")


def work_off(jobs: list[Job], record: Record, seconds: float) -> None:
    """Runs the unfinished jobs in order until the time is over.

    Args:
        jobs: the jobs.
        record: has the finished jobs; saved after each job.
        seconds: of this slice. At the end the running job is interrupted; a job that resumes must save before.
    """
    begin = time.monotonic()
    this = {"began": time.strftime("%Y-%m-%d %H:%M:%S"), "seconds": 0.0, "jobs": []}
    record.content["slices"].append(this)
    for job in jobs:
        left = seconds - (time.monotonic() - begin)
        if job.name in record.results or left <= 0:
            continue
        print(f"{job.name} ...", file=sys.stderr, flush=True)
        result = _in_fork(job, record, left)
        if result is None:
            cuts = record.content["cut"].setdefault(job.name, [])
            cuts.append(round(left))
            if len(cuts) > 1 and not job.resumes:
                result = {"error": f"ended twice without a result, when it had {' and '.join(map(str, cuts))} seconds"}
        if result is not None:
            record.results[job.name] = result
        this["jobs"].append(job.name)
        this["seconds"] = round(time.monotonic() - begin, 1)
        record.save()
        said = result.get("error", "done") if isinstance(result, Mapping) else "to be continued"
        print(f"{job.name}: {said}", file=sys.stderr, flush=True)


def _in_fork(job: Job, record: Record, seconds: float) -> dict | None:
    """Returns the result of a job in a forked process; None if it ended without one, or the time was over."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_do, args=(job, record, theirs))
    process.start()
    theirs.close()
    try:
        if ours.poll(max(seconds - GRACE, seconds / 2) if job.resumes else seconds):
            return ours.recv()
        process.terminate()
        return ours.recv() if ours.poll(GRACE) else None
    except EOFError:  # it ended
        return None
    finally:
        process.join(5.0)
        process.kill()
        process.join()


def _do(job: Job, record: Record, connection) -> None:
    """Runs a job, and sends its result or error."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: signals it when its parent ends
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    try:
        result = job.function(record)
    except SystemExit as ended:
        if not isinstance(ended.code, str):  # a signal has stopped it
            os._exit(1)
        result = {"error": ended.code}
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        result = {"error": sentence_of(error) or f"{type(error).__name__}: {lines[0][:300]}"}
    connection.send(result)
    connection.close()
