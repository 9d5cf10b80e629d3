"""One self-contained HTML page about a run: settings, scores, slots over the refinement steps, traversals, curves and
experiments."""

from iodine_pl.report.page import write_report

__all__ = ["write_report"]
