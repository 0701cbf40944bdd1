"""Pages for tests."""

import numpy as np

from sdo_ray.evaluation.report import render_report
from sdo_ray.evaluation.result import Evaluation
from sdo_ray.evaluation.settings import ReportSettings
from tests.support.evaluations import made_up

EVIL = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 2</script>",
    '"><img src=x onerror="window.broken = 3">',
    "<!-- <script> {{ 7 * 7 }} {% raw %}",
    "' onmouseover='window.broken = 4",
    "javascript:window.broken = 5",
    "<svg onload=window.broken=6>",
    "]]> &lt;b&gt; \u2028 \u202e",
)
"""Prompts of an attacker."""


def harmless(count: int = 12, *, champion: bool = False) -> Evaluation:
    """Prompts `thing 0`, ..., in two categories, with scores that sort them otherwise."""
    draw = np.random.default_rng(0)
    names = {
        "heldout": {"about": "A `evaluator`.", "trained_on": False, "heldout": True},
        "learned": {"trained_on": True},
    }
    return made_up(
        [f"thing {i}" for i in range(count)],
        categories=["even" if i % 2 == 0 else "odd" for i in range(count)],
        champion=champion,
        details={
            "created": "2026-11-21T12:00:00+00:00",
            "metrics": names,
            "history": {"reward": [[1, 0.0, 1.0], [2, 0.5, 1.0]]},
            "sha256": dict.fromkeys(("base", "candidate", "champion"), "0" * 64),
            "settings": {"run": {"name": "made-up"}},
            "provenance": {"version.torch": "2.13"},
        },
        learned=draw.normal(1, 1, count),
        heldout=draw.normal(0, 1, count),
        distance_from_base=draw.uniform(0, 1, count),
    )


def hostile() -> Evaluation:
    """Everything that comes from outside is an attack."""
    it = made_up(
        EVIL,
        categories=[EVIL[i % 3] for i in range(len(EVIL))],
        champion=True,
        details={
            "created": EVIL[2],
            "metrics": {"quality": {"about": EVIL[0], "trained_on": True}},
            "history": {EVIL[1]: [[1, 0.0, 1.0]]},
            "sha256": dict.fromkeys(("base", "candidate", "champion"), EVIL[2]),
            "settings": {EVIL[0]: EVIL[1]},
            "provenance": {EVIL[1]: EVIL[2]},
        },
        quality=np.arange(len(EVIL)),
        **{EVIL[2]: np.arange(len(EVIL))},
    )
    models = {role: EVIL[i] for i, role in enumerate(it.models)}
    return Evaluation(EVIL[1], models, it.images, {EVIL[0]: {"base": 1.0}} | dict(it.set_metrics), it.details)


def page(evaluation: Evaluation, **settings: int) -> str:
    return render_report(evaluation, ReportSettings(**settings))
