"""A page for people about a run while it goes on: curves, previews by update, what was decided."""

from sdo_ray.run_page.page import PAGE, RunPage

__all__ = ["PAGE", "RunPage"]
