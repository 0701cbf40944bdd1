"""The page for people: one file, which needs no network and no framework."""

from sdo_ray.evaluation.report.render import REPORT, render_report

__all__ = ["REPORT", "render_report"]
