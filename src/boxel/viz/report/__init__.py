"""HTML reports: on a labeled dataset, on what a dataset holds and what is wrong with it, and on detections."""

from boxel.viz.report.check_page import write_check_report
from boxel.viz.report.evaluation_page import write_evaluation_report
from boxel.viz.report.page import write_report

__all__ = ["write_check_report", "write_evaluation_report", "write_report"]
