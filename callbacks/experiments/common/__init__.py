"""What the experiments share. Importing it checks that the packages of the extra ``experiments`` are there."""

from iodine_pl.evaluation.extra import require_experiments

# Here, as every experiment passes by here before it imports matplotlib, and none should fail after it has measured.
require_experiments("iodine_pl.callbacks.experiments", "matplotlib", "sklearn")
