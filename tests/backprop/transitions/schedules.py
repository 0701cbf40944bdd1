"""Schedulers into which noise can be put, as a call sets them."""

from typing import Any

import diffusers
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.backprop.tiny import ddim

N = 8


def flow(num_steps: int = N) -> Any:
    """Flow matching with a shift of 3."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(num_steps)
    return scheduler


def of(name: str, **config: Any) -> Any:
    """A scheduler of diffusers with the timesteps of N steps."""
    scheduler = ddim(**config) if name == "DDIM" else getattr(diffusers, f"{name}Scheduler")(**config)
    scheduler.set_timesteps(N)
    return scheduler


SCHEDULES: dict[str, dict[str, Any]] = {
    "FlowMatchEulerDiscrete": {"shift": 3.0},
    "DDIM": {},
    "EulerDiscrete": {},
    "DPMSolverMultistep": {},
    "EDMEuler": {},
    "EDMDPMSolverMultistep": {},
}
FIRST_ORDER = ("FlowMatchEulerDiscrete", "DDIM", "EulerDiscrete", "EDMEuler")
"""Whose step is alpha' xhat + sigma' ehat."""
