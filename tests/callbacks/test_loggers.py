"""Pictures and tables reach the loggers that take them."""

import errno
import os
import threading
import warnings

import numpy as np
import pytest
from helpers import loader, small, trainer
from note_loggers import Artifacts, Pictures, Silent
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from iodine_pl.callbacks import LastCheckpoint, SlotPanels
from iodine_pl.callbacks.experiments.common.outcome import Outcome, Picture
from iodine_pl.callbacks.run_folder import RunFolder, RunLogger
from iodine_pl.cli import prepare_process
from iodine_pl.files.atomic import WriteError

TABLE = [{"score": "ARI", "mean": 0.5, "of": 1}, {"score": "MSE", "mean": 0.25, "of": ""}]
IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
OUTCOME = Outcome(TABLE, {"": Picture(IMAGE, "Some colors.")}, {})


def written(tmp_path, *loggers):
    """Writes an experiment for a Trainer with these loggers."""
    made = trainer(tmp_path, logger=list(loggers))
    OUTCOME.write(tmp_path, "colors", made, {})


def test_a_logger_with_pictures_gets_them_and_the_table(tmp_path):
    logger = Pictures()
    written(tmp_path, logger)
    table, image = logger.noted
    assert table == ("table", "experiments/colors", [["score", "mean", "of"], ["ARI", 0.5, "1"], ["MSE", 0.25, ""]], 0)
    assert image[:2] == ("image", "experiments/colors")
    np.testing.assert_array_equal(image[2], IMAGE)


def test_a_logger_with_files_of_a_run_gets_them_and_the_text(tmp_path):
    logger = Artifacts()
    written(tmp_path, logger)
    text, image = logger.noted
    assert text[:2] == ("text", "7")
    assert "| ARI " in text[2]
    assert text[3] == "experiments/colors_0000000.md"
    assert (image[1], image[3]) == ("7", "experiments/colors_0000000.png")
    np.testing.assert_array_equal(image[2], IMAGE)


def test_tensorboard_gets_both(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    written(tmp_path, logger)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["experiments/colors"]
    assert events.Tags()["tensors"] == ["experiments/colors/text_summary"]


def test_every_logger_with_pictures_gets_them_and_others_are_skipped(tmp_path):
    loggers = [Silent(), CSVLogger(tmp_path), Pictures(), Artifacts()]
    made = trainer(tmp_path, SlotPanels(), logger=loggers)
    made.fit(small(), loader(), loader())
    assert [(note[1], note[3]) for note in loggers[2].noted] == [("slots", 3), ("refinement", 3)]
    assert [note[3] for note in loggers[3].noted] == ["slots_0000003.png", "refinement_0000003.png"]


@pytest.mark.parametrize(("logger", "place"), [(False, "."), (True, "lightning_logs/version_0")])
def test_a_trainer_without_the_command_keeps_its_folders(tmp_path, logger, place):
    logger = CSVLogger(tmp_path) if logger else False
    callbacks = [SlotPanels(), LastCheckpoint(every_n_train_steps=1)]
    trainer(tmp_path, *callbacks, logger=logger, enable_checkpointing=True).fit(small(), loader(), loader())
    assert (tmp_path / place / "panels" / "slots_0000003.png").is_file()
    assert (tmp_path / place / "checkpoints" / "last.ckpt").is_file()


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    """TensorBoard writes in a thread of its own, whose error names no file."""

    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # set back at the end
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    prepare_process()
    logger = RunLogger(RunFolder(tmp_path, "colors"))
    logger.log_metrics({"a": 1.0}, 0)
    logger.save()
    monkeypatch.setattr(RecordWriter, "write", full)
    logger.log_metrics({"a": 1.0}, 1)
    for finish in (logger.save, lambda: logger.finalize("failed")):
        words = r"^TensorBoard's file cannot be written: no space is left for it in .*colors.version_0. Free some"
        with pytest.raises(WriteError, match=words):
            finish()
    assert "Traceback" not in capsys.readouterr().err
