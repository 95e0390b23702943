"""HTML reports: on a dataset, on a labeled one, on a training, on an evaluation, and on a comparison."""

from boxel.viz.report.check_page import write_check_report
from boxel.viz.report.compare_page import write_comparison_report
from boxel.viz.report.evaluation_page import write_evaluation_report
from boxel.viz.report.page import write_report
from boxel.viz.report.training import write_training_report

__all__ = [
    "write_check_report",
    "write_comparison_report",
    "write_evaluation_report",
    "write_report",
    "write_training_report",
]
