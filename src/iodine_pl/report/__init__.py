"""One self-contained HTML page of a run: configuration, curves, slots over the refinement steps, experiments."""

from iodine_pl.report.page import write_report

__all__ = ["write_report"]
