"""Pages that show what was done: files of HTML that need nothing beside them."""

from boxel.viz.report.page import write_report

__all__ = ["write_report"]
