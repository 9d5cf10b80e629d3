"""Checkpoints: found, loaded, written, exported.

A run that was stopped or killed goes on to the same weights, bit for bit, as a run that was not
(``tests/test_resume.py``), on the same number of processes with the same batch size. No state of a random generator and
no position of a data loader is saved. It rests on these parts:

- The order of the images is a function of (seed, epoch), and each process reads its part of it:
  :class:`iodine_pl.datamodules.sampler.BatchSampler`.
- The position in the epoch is the Trainer's own count of batches: ``SceneDataModule.train_dataloader`` hands it to the
  sampler. ``ResumableLoader``, in the same file, tells Lightning that training may resume in the middle of an epoch.
- The noise of a training batch is a function of (seed, rank, epoch, batch): :meth:`iodine_pl.SceneModel.training_step`,
  with :func:`iodine_pl.posterior.keyed_normal`.
- The noise of evaluation is a function of (seed, index of the image), or of (seed, rank, batch) where a batch has no
  ``index``: :meth:`iodine_pl.SceneModel.evaluation_noise`. Validation and pictures leave the random state as it was.
- The schedules, of the learning rate and of the pixel scale, are functions of the count of updates. Lightning saves the
  count and the optimizer's moments. :meth:`iodine_pl.SceneModel.on_train_start` sets the learning rate for the present
  arguments.
- The counters of skipped updates are saved by :meth:`iodine_pl.SceneModel.on_save_checkpoint`.
- The state of callbacks is saved by Lightning. :class:`iodine_pl.callbacks.BestCheckpoint` takes the best score and
  the metric it is of from ``best.ckpt`` itself: ``last.ckpt`` may be older than it.
- One process at a time trains in a folder: :meth:`iodine_pl.callbacks.run_folder.RunFolder.lock`.
- :func:`iodine_pl.checkpoints.reading.read_file` compares every byte that is read with its checksum.
- :class:`iodine_pl.callbacks.LastCheckpoint` saves at the end of a batch, also in the middle of an epoch, before a
  validation, and when training stops or is stopped by a signal. It notes whether the validation of this update is still
  to be done: training that goes on does it first. After ``on_train_end`` the Trainer would take an
  epoch that was left in the middle for a whole one.
- :class:`iodine_pl.checkpoints.writing.AtomicCheckpointIO` leaves the old file or the new one, whenever a kill comes.
"""
