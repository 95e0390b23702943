"""The HTML report on a labeled dataset."""

from boxel.viz.report.page import write_report

__all__ = ["write_report"]
