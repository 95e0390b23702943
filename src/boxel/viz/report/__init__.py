"""HTML reports: on a labeled dataset, and on what a dataset holds and what is wrong with it."""

from boxel.viz.report.check_page import write_check_report
from boxel.viz.report.page import write_report

__all__ = ["write_check_report", "write_report"]
