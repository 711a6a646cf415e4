"""Reports: one page of HTML on a run, on several beside each other, or on a study."""

from fljax.reports.report import write_report

__all__ = ["write_report"]
