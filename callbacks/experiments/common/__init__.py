"""Shared code of the experiments. Importing it checks that the packages of the extra ``experiments`` are installed."""

from iodine_pl.evaluation.extra import require_experiments

# Every experiment imports this package before matplotlib, so none fails only after it has measured.
require_experiments("iodine_pl.callbacks.experiments", "matplotlib", "sklearn")
