"""Finds, loads, writes and exports checkpoints.

A run that was stopped or killed and resumed ends with the same weights, bit for bit, as an uninterrupted run
(``tests/checkpoints/test_resume.py``), with the same number of processes and batch size. Neither the state of a random
generator nor the position of a data loader is saved. This rests on these parts:

- The order of the images is a function of (seed, epoch), and each process reads its part of it:
  :class:`iodine_pl.datamodules.sampler.BatchSampler`.
- The position in the epoch is the Trainer's own count of batches: ``SceneDataModule.train_dataloader`` passes it to the
  sampler. ``ResumableLoader``, in the same file, tells Lightning that training may resume in the middle of an epoch.
- The noise of a training batch is a function of (seed, rank, epoch, batch): :meth:`iodine_pl.SceneModel.training_step`,
  with :func:`iodine_pl.posterior.keyed_normal`.
- The noise of evaluation is a function of (seed, index of the image), or of (seed, rank, batch) where a batch has no
  ``index``: :meth:`iodine_pl.SceneModel.evaluation_noise`. Validation and pictures do not change the random state.
- The schedules of the learning rate and of the pixel scale are functions of the number of updates. Lightning saves this
  number and the optimizer's moments. :meth:`iodine_pl.SceneModel.on_train_start` sets the learning rate for the current
  arguments.
- The counters of skipped updates are saved by :meth:`iodine_pl.SceneModel.on_save_checkpoint`.
- The state of callbacks is saved by Lightning. :class:`iodine_pl.callbacks.BestCheckpoint` reads the best score and its
  metric from ``best.ckpt`` itself, since ``last.ckpt`` may be older.
- One process at a time trains in a folder: :meth:`iodine_pl.callbacks.run_folder.RunFolder.lock`.
- :func:`iodine_pl.checkpoints.reading.read_file` compares every byte that it reads with its checksum.
- :class:`iodine_pl.callbacks.LastCheckpoint` saves at the end of a batch, also in the middle of an epoch, before a
  validation, and when training stops or is stopped by a signal. It records whether the validation of this update is
  still due; a resumed training does it first. It does not save after ``on_train_end``, when the Trainer would take an
  unfinished epoch for a whole one.
- :class:`iodine_pl.checkpoints.writing.AtomicCheckpointIO` leaves either the old file or the new one after a kill.
"""
