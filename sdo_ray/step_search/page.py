"""The search as a page: one file that needs nothing from anywhere and runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from sdo_ray.evaluation.report.embedding import data_uri, packaged, policy_hash
from sdo_ray.step_search.found import Found

SIZE = 1200
"""Longest side of the plot in pixels."""


def render(name: str, about: str, found: Sequence[Found], schedule: str, image: bytes) -> str:
    """The page as HTML.

    Args:
        name: of the run.
        about: what was searched, in words.
        found: what was measured at the end.
        schedule: where the file is that settings take.
        image: PNG of `plot`.
    """
    css = packaged("page.css")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=name,
        about=about,
        css=Markup(css),
        css_hash=policy_hash(css),
        found=found,
        other_steps=list(dict.fromkeys(steps for one in found for steps in one.other_steps)),
        schedule=schedule,
        image=data_uri(image, SIZE),
    )
