"""What a run shows: a bar with the time left on a terminal, lines in a log."""

import os
import struct

import pytest
from command import TINY, run, start

from iodine_pl.cli.progress import table_of

pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))

STEPS = ["--trainer.max_steps=24", "--trainer.val_check_interval=5", "--trainer.check_val_every_n_epoch=null"]


def test_the_bar_counts_the_updates_of_the_whole_training(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))  # rows and columns
    process = start("fit", *TINY, *STEPS, folder=tmp_path, output=os.ttyname(theirs))
    said = os.read(ours, 1 << 16)
    os.close(theirs)  # the command has it open
    while True:
        try:
            said += os.read(ours, 1 << 16)
        except OSError:  # the other side is closed
            break
    os.close(ours)
    assert process.wait(60) == 0, said.decode()
    assert b"updates: 100%" in said
    assert b"24/24" in said
    assert b"Epoch" not in said
    assert b"<00:0" in said  # the time left


def test_a_log_has_a_line_for_each_validation(tmp_path):
    said = run("fit", *TINY, *STEPS, folder=tmp_path)
    assert said.count(" of 24 updates, ") == 4
    assert "it/s" not in said


def test_the_table_has_few_scores_of_four_digits():
    table = table_of("test", {"test/elbo": 1234.567, "test/ari_fg": 0.98764, "test_steps/nll_0": 3.0, "test/other": 1})
    assert [line.split() for line in table.split("\n")] == [["test/ari_fg", "0.9876"], ["test/elbo", "1235"]]
    assert table_of("test", {"test_loss": 0.5}).split() == ["test_loss", "0.5"]
