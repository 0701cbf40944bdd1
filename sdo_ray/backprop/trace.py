"""Run an unmodified diffusers pipeline with the graph that a plan asks for.

How: for the duration of the block
    the pipeline's call         loses its `torch.no_grad` decorator (a subclass with the undecorated call, swapped in)
    the denoiser's calls        run without a graph, or, at a kept step, with the plan's scale and coupling
    the scheduler's `step`      is told apart from the next one: it ends a step (a subclass again, so that a pipeline
                                which copies its scheduler copies a working one)
    checks of images            a safety checker and a watermark are passed by
What is left with a graph is the kept denoiser calls and the linear path from them through the scheduler and the decoder
to the images. That path stores no activations as long as only the trained parameters require gradients.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from torch.autograd.graph import Node

from sdo_ray.backprop.bypass import converted_anew, without_checks
from sdo_ray.backprop.caches import bypassed, cache_hooks, filled, forget
from sdo_ray.backprop.compatibility import check_networks, check_stochastic
from sdo_ray.backprop.copies import SavedCopies
from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.backprop.denoisers import denoisers_of, names_of_denoisers
from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.guidance import GuidedStep, prompt_alone
from sdo_ray.backprop.kept import KeptCall, keep_call
from sdo_ray.backprop.patches import (
    attention_processors,
    replaced_call,
    replaced_step,
    restored_processors,
    undecorated,
)
from sdo_ray.backprop.plan import BackpropPlan, StepGradient
from sdo_ray.backprop.posterior import posterior_mean
from sdo_ray.backprop.record import OutputHook
from sdo_ray.backprop.renoise import DenoiserCall, with_renoised
from sdo_ray.backprop.repeated import check_can_be_repeated, checkpointed
from sdo_ray.backprop.same_rows import check_once, once
from sdo_ray.backprop.steps import ExactRunner, StepRunner
from sdo_ray.backprop.tensors import depends_on, detach_held, floating, map_floating, own_lists
from sdo_ray.backprop.transitions import StochasticSteps


@contextmanager
def trace(
    pipeline: Any,
    plan: BackpropPlan,
    output_hook: OutputHook | None = None,
    shifts: Mapping[int, torch.Tensor] | None = None,
    elsewhere: list[KeptCall] | None = None,
    runner: StepRunner | None = None,
    decode_again: bool = False,
    stochastic: StochasticSteps | None = None,
) -> Iterator["Trace"]:
    """Within the block, calls of `pipeline` build the graph of `plan`; one call per block.

    Args:
        pipeline: any diffusers pipeline with a denoiser and a scheduler. It is left as found, also after an exception.
        plan: the plan.
        output_hook: called with each kept step's output, if given; see `sdo_ray.backprop.record.OutputHook`.
        shifts: step k in 1 .. N -> what is added to z_k, the latents that the scheduler gives for it, of their shape.
            The gradient at a shift of zeros is dR/dz_k. (z_0 is the call's own argument `latents`.)
        elsewhere: if given, kept denoiser calls get no graph and are appended here instead.
        runner: runs the denoiser at steps without a graph; by default exactly, as the pipeline does.
        decode_again: whether decoders keep their inputs alone, see `sdo_ray.backprop.decoder`.
        stochastic: steps with fresh noise after them, and rows that are the same until then, if given.

    Raises:
        TraceError: no denoiser or scheduler, a shift outside 1 .. N, the call did not take the plan's number of steps;
            what is switched on would falsify a gradient (see `sdo_ray.backprop.compatibility`);
            with `elsewhere`, the plan has coupling or copies, whose backward pass is of more than single calls; with
            `elsewhere` or checkpointing, the pipeline puts other attention processors into its denoiser for its call,
            or calls it with a cache; with `stochastic`, see `check_stochastic`.
    """
    denoisers = denoisers_of(pipeline)
    scheduler = getattr(pipeline, "scheduler", None)
    if not denoisers or not hasattr(scheduler, "step"):
        raise TraceError(
            "pipeline",
            f"{type(pipeline).__name__} with components {', '.join(sorted(pipeline.components))}",
            f"a pipeline with a scheduler and one of {names_of_denoisers()}",
            "use a pipeline that samples by denoising steps",
        )
    if outside := sorted(k for k in shifts or {} if not 1 <= k <= plan.num_steps):
        raise TraceError("shifts", outside, f"steps 1 .. {plan.num_steps}", "give z_0 as the call's `latents`")
    if elsewhere is not None and not plan.is_of_single_calls:
        fix = "use sdo, refl, drtune, flowbp-sparse, or draft with K = 1"
        raise TraceError("elsewhere", plan.describe(), "a plan of single calls, without coupling or copies", fix)
    if plan.steps:
        check_networks(pipeline, denoisers, elsewhere is not None)
    if stochastic is not None:
        check_stochastic(plan, denoisers, stochastic)
    parts = [module for module in pipeline.components.values() if isinstance(module, torch.nn.Module)]
    others = [module for module in parts if module not in denoisers.values()]
    state = Trace(plan, output_hook, shifts or {}, elsewhere, denoisers, runner or ExactRunner(), stochastic)
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(state.runner.sampling(plan.num_steps, denoisers))
        stack.enter_context(restored_processors(denoisers.values()))
        for name, module in denoisers.items():
            stack.callback(forget, state.caches[name])
            stack.enter_context(replaced_call(module, functools.partial(state.denoise, name)))
        for module in others:
            stack.enter_context(replaced_call(module, state.aside))
            if not any(p.requires_grad for p in module.parameters()):
                stack.enter_context(converted_anew(module))
                if decode_again and callable(getattr(module, "decode", None)):
                    stack.enter_context(decoded_again(module))
            for part in module.children():  # An autoencoder is called by `decode`.
                stack.enter_context(replaced_call(part, state.inside))
        stack.callback(setattr, pipeline, "scheduler", scheduler)  # Some pipelines go on with a copy of it.
        stack.enter_context(replaced_step(scheduler, state.integrate))
        for part in (pipeline, *(p for p in vars(pipeline).values() if isinstance(p, DiffusionPipeline))):
            stack.enter_context(undecorated(part))
            stack.enter_context(without_checks(part))
        stack.enter_context(state.copies)
        yield state
    if state.steps_taken != plan.num_steps:
        raise _wrong_count(plan, state.steps_taken)


class Trace:
    """Where the sampler is, and what has been kept so far. Made by `trace`.

    `steps_taken` and `latents_have_gradient`, of the newest latents, are for its user.
    """

    def __init__(
        self,
        plan: BackpropPlan,
        output_hook: OutputHook | None,
        shifts: Mapping[int, torch.Tensor],
        elsewhere: list[KeptCall] | None,
        denoisers: Mapping[str, torch.nn.Module],
        runner: StepRunner,
        stochastic: StochasticSteps | None,
    ) -> None:
        self.plan = plan
        self.output_hook = output_hook
        self.shifts = dict(shifts)
        self.elsewhere = elsewhere
        self.runner = runner
        self.stochastic = stochastic
        self.copies = SavedCopies()
        self.caches = {name: cache_hooks(module) for name, module in denoisers.items()}
        self._denoisers = denoisers
        self._processors = {name: attention_processors(module) for name, module in denoisers.items()}
        self.step = 0
        self.latents_have_gradient = False
        self._stepped = False
        # Where the graphs of kept denoiser calls end: what coupling lets gradient through to.
        self._outputs: set[Node] = set()
        self._calls: list[DenoiserCall] = []
        self._guided: GuidedStep | None = None
        self._first_elsewhere = 0
        self._skipped = 0

    @property
    def steps_taken(self) -> int:
        """Steps that the scheduler has finished."""
        return self.step + self._stepped

    @property
    def kept(self) -> StepGradient | None:
        """The plan's entry for the step in progress."""
        return self.plan.steps.get(self.step)

    @property
    def stopped(self) -> bool:
        """Whether the reward's posterior mean is made, and what the pipeline still does is of no consequence."""
        return self.plan.reward_at is not None and self.step > self.plan.reward_at

    def denoise(self, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One denoiser call. How many make a step differs: a step begins at the first after `integrate`."""
        if self._stepped:
            self._next_step()
        if self.stopped:
            self._skipped += 1
            return self._calls[(self._skipped - 1) % len(self._calls)].output
        given_args, given_kwargs = own_lists((args, kwargs))
        if self.kept is not None:
            forward = self._exactly(name, forward)
        with self.copies.paused():
            output = self._by_groups(name, forward, args, kwargs)
        if self.step in (self.plan.reward_at, self.plan.renoised_at):
            self._calls.append(DenoiserCall(forward, given_args, given_kwargs, output))
        return output

    def aside(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of another component: a ControlNet between the steps needs no graph where the denoiser has none."""
        if 0 < self.steps_taken < self.plan.num_steps and self.steps_taken not in self.plan.steps:
            with torch.no_grad():
                return forward(*args, **kwargs)
        return self.inside(forward, args, kwargs)

    def inside(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a network that keeps its own tensors as they are."""
        with self.copies.paused():
            return forward(*args, **kwargs)

    def integrate(self, scheduler: Any, step: Callable[..., Any], bound: inspect.BoundArguments) -> Any:
        """The scheduler makes a step; several without a denoiser call between them are one step."""
        given = bound.arguments
        if "model_output" not in given or "sample" not in given:
            raise _not_a_step(scheduler, given)
        o, t, z = given["model_output"], given.get("timestep"), given["sample"]
        if self.steps_taken == 0:
            self._check_count(scheduler, t)
        if self.stopped:
            self._stepped = True
            return _prev_sample(bound, z)
        if self.step == self.plan.renoised_at:
            generator = torch.Generator().manual_seed(self.plan.seed)
            with self.copies.paused():
                o = with_renoised(self._calls, scheduler, o, t, z, self.plan.copies, generator)
            given["model_output"] = o
        if self.plan.guidance == "prompt" and self.kept is not None:
            o = given["model_output"] = self._prompt_alone(o)
        if self.output_hook is not None and self.kept is not None and o.requires_grad:
            self.output_hook(self.step, self.kept.scale, o)
        xhat = posterior_mean(scheduler, o, t, z) if self.step == self.plan.reward_at else None
        self._stepped = True
        if xhat is not None:
            return _prev_sample(bound, xhat)
        if self.stochastic is not None and given.get("eta"):
            legal = "0: the noise of its steps is that of the estimator's kernel"
            raise TraceError("eta", given["eta"], legal, "leave the pipeline's eta out")
        result = step(*bound.args, **bound.kwargs)
        self.latents_have_gradient = any(stepped.requires_grad for stepped in floating(result))
        stochastic, shift = self.stochastic, self.shifts.pop(self.steps_taken, None)
        if stochastic is not None:
            result = _changed(result, lambda stepped: stochastic.after(self.step, stepped, z, o))
        return result if shift is None else _changed(result, lambda stepped: stepped + shift)

    def _next_step(self) -> None:
        self.step, self._stepped = self.step + 1, False
        self._guided, self._first_elsewhere = None, len(self.elsewhere or ())
        if self.step >= self.plan.num_steps:
            raise _wrong_count(self.plan, f"more than {self.plan.num_steps}")

    def _by_groups(self, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Rows that are the same until a later step are denoised once."""
        if self.stochastic is None:
            return self._denoise(name, forward, args, kwargs)
        width, rows = self.stochastic.branching.same_before(self.step), len(self.stochastic.generators)
        check_once(self._denoisers[name], forward, args, kwargs, width, rows)
        if self.kept is not None:
            return once(functools.partial(self._denoise, name, forward), args, kwargs, width, rows)

        # A runner sees all rows at every step: what it remembers of one fits the next.
        def shared(*args: Any, **kwargs: Any) -> Any:
            return once(lambda args, kwargs: forward(*args, **kwargs), args, kwargs, width, rows)

        return self._denoise(name, shared, args, kwargs)

    def _denoise(self, name: str, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kept = self.kept
        if kept is None:
            if self.caches[name]:
                # One of them writes what it holds into the pipeline's own arguments.
                args, kwargs = own_lists((args, kwargs))
            with torch.no_grad(), filled(self.caches[name]):
                return self.runner(self.step, name, forward, args, kwargs)
        if self.step == self.plan.renoised_at:
            with torch.no_grad():
                output = forward(*args, **kwargs)
            for o in floating(output):
                o.requires_grad_()
            return output
        guided = self.plan.guidance == "prompt"
        if self.elsewhere is not None or self.plan.checkpoint or guided:
            option = "elsewhere" if self.elsewhere is not None else "guidance" if guided else "checkpoint"
            check_can_be_repeated(option, name, (args, kwargs), self._processors[name], self._denoisers[name])
        if self.elsewhere is not None:
            self.elsewhere.append(keep_call(name, forward, args, kwargs, kept.scale))
            return self.elsewhere[-1].output
        # Autocast caches its casts of the weights; one made without a graph would take the gradient from them.
        torch.clear_autocast_cache()
        args, kwargs = map_floating(functools.partial(self._couple, kept.coupling), (args, kwargs))
        if self.plan.checkpoint:
            forward = checkpointed(forward)
        if guided:
            self._guided = self._guided or GuidedStep(self._leave_graph)
            return self._guided.call(forward, args, kwargs)
        output = forward(*args, **kwargs)
        if kept.coupling == 0:
            # A cache would carry the nested gradient from this call to later ones.
            detach_held((args, kwargs, output))
        for o in floating(output):
            self._leave_graph(o)
        return output

    def _leave_graph(self, o: torch.Tensor) -> None:
        """Take note of an output of a kept denoiser call, if it has a graph, and give it the plan's scale."""
        if o.grad_fn is not None and self.kept is not None:
            self._outputs.add(o.grad_fn)
            if self.kept.scale != 1:
                o.register_hook(_times(self.kept.scale))

    def _prompt_alone(self, o: torch.Tensor) -> torch.Tensor:
        """What the scheduler is given, with the gradient of the prompt's branch of its denoiser calls."""
        with self.copies.paused():
            if self._guided is not None:
                return self._guided.guided(o)
            if self.elsewhere is not None:
                first = self._first_elsewhere
                self.elsewhere[first:] = prompt_alone(self.elsewhere[first:], o)
            return o

    def _exactly(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward` as a kept step calls it, in the backward pass too where that repeats the call."""

        step = self.step

        def call(*args: Any, **kwargs: Any) -> Any:
            with bypassed(self.caches[name]):
                return self.runner.exact(step, name, forward, args, kwargs)

        return call

    def _couple(self, coupling: float, x: torch.Tensor) -> torch.Tensor:
        """x -> sg(x) + alpha (x - sg(x)) for what depends on kept calls; conditions keep their gradient.

        A copy, because some pipelines go on to update their latents in place.
        """
        if coupling == 1 or not depends_on(x, self._outputs):
            return x.clone()
        if coupling == 0:
            return x.detach().clone()
        x = x.clone()
        x.register_hook(_times(coupling))
        return x

    def _check_count(self, scheduler: Any, t: Any) -> None:
        """After one denoiser call the schedule is known: find a call that takes more steps before it takes them."""
        schedule = getattr(scheduler, "timesteps", None)
        if not isinstance(schedule, torch.Tensor) or not isinstance(t, torch.Tensor) or t.numel() != 1:
            return
        places = (schedule.cpu() == t.cpu()).nonzero()
        left = len(schedule) - int(places[0]) if len(places) else self.plan.num_steps
        # Some pipelines do not step from the last of the timesteps, the end itself: one more shows later. Some go
        # through several schedules, one for each part of a video or each resolution: fewer show at the end.
        if left - 1 > self.plan.num_steps:
            raise _wrong_count(self.plan, left)


def _prev_sample(bound: inspect.BoundArguments, z: torch.Tensor) -> Any:
    """`z` in the form in which this call of `step` would have returned it, without making the step."""
    bound.apply_defaults()
    if not bound.arguments.get("return_dict", True):
        return (z, z)
    return SchedulerOutput(prev_sample=z)


def _changed(result: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """What `step` returned, with its latents changed."""
    if isinstance(result, tuple):
        return (change(result[0]), *result[1:])
    result.prev_sample = change(result.prev_sample)
    return result


def _not_a_step(scheduler: Any, given: dict[str, Any]) -> TraceError:
    return TraceError(
        "scheduler",
        f"{type(scheduler).__name__}.step({', '.join(list(given)[1:])})",
        "a step with model_output and sample",
        "use another scheduler",
    )


def _times(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda g: factor * g


def _wrong_count(plan: BackpropPlan, taken: int | str) -> TraceError:
    return TraceError(
        "num_inference_steps",
        f"a call that takes {taken} scheduler steps",
        f"{plan.num_steps} steps, the plan's num_steps",
        "make the plan for the steps the scheduler takes, or change num_inference_steps (or strength, timesteps)",
    )
