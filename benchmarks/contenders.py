"""What is compared: every estimator with its default options, and variants."""

from collections.abc import Mapping

from sdo_ray.backprop import available
from sdo_ray.rollout.settings import PlanSettings

CONTENDERS: Mapping[str, PlanSettings] = {
    **{name: PlanSettings(name=name) for name in available()},
    "sdo-early": PlanSettings(name="sdo", options={"draw": "early"}),
}
"""Name in the tables -> estimator and options."""
