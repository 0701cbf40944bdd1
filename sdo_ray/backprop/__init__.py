"""Gradients of a reward through a diffusion sampler: plans say which steps to keep, tracing keeps them.

Imports torch and diffusers only, so that it can be used alone, in a notebook or on a GPU box without a cluster.
"""

from sdo_ray.backprop import estimators
from sdo_ray.backprop.conditions import given_prompt_embeds, initial_latents, initial_prompt_embeds
from sdo_ray.backprop.errors import BackpropError, PlanError, TraceError
from sdo_ray.backprop.kept import KeptCall, backward_kept, surrogate
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.record import GradientRecord, OutputHook
from sdo_ray.backprop.registry import available, check_plan, estimator, make_plan, needs_weights, option_names
from sdo_ray.backprop.sample import differentiable_sample
from sdo_ray.backprop.sampler_plan import check_sampler_plan, sampler_plan
from sdo_ray.backprop.schedule import called_scheduler
from sdo_ray.backprop.solver import SolverWeights, solver_weights
from sdo_ray.backprop.steps import ExactRunner, StepRunner, run_by
from sdo_ray.backprop.trace import trace

__all__ = [
    "BackpropError",
    "BackpropPlan",
    "ExactRunner",
    "GradientRecord",
    "KeptCall",
    "OutputHook",
    "PlanError",
    "SolverWeights",
    "StepGradient",
    "StepRunner",
    "TraceError",
    "available",
    "backward_kept",
    "called_scheduler",
    "check_plan",
    "check_sampler_plan",
    "differentiable_sample",
    "estimator",
    "estimators",
    "given_prompt_embeds",
    "initial_latents",
    "initial_prompt_embeds",
    "make_plan",
    "needs_weights",
    "option_names",
    "run_by",
    "sampler_plan",
    "solver_weights",
    "surrogate",
    "trace",
]
