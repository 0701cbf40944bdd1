"""Images with a gradient, from any diffusers pipeline."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.kept import KeptCall
from sdo_ray.backprop.plan import BackpropPlan
from sdo_ray.backprop.record import OutputHook
from sdo_ray.backprop.steps import StepRunner
from sdo_ray.backprop.trace import trace
from sdo_ray.backprop.transitions import StochasticSteps


def differentiable_sample(
    pipeline: Any,
    plan: BackpropPlan,
    *,
    output_hook: OutputHook | None = None,
    shifts: Mapping[int, torch.Tensor] | None = None,
    elsewhere: list[KeptCall] | None = None,
    runner: StepRunner | None = None,
    decode_again: bool = False,
    stochastic: StochasticSteps | None = None,
    **pipeline_call: Any,
) -> torch.Tensor:
    """Call `pipeline` and return its images with the graph that `plan` keeps attached.

    The images are, to the bit, those of `pipeline(output_type="pt", **pipeline_call)`. Gradients reach whatever
    requires them: adapter parameters of the denoiser, `prompt_embeds`, `latents` or a 0-dimensional `guidance_scale`
    given in the call, `shifts`. Only what is trained should have `requires_grad=True`; anything else costs memory.
    Initial `latents`, and shifts of later ones, receive their direct term and the term of the first kept step after
    them: keep one step (K = 1) to differentiate with respect to them.

    Args:
        pipeline: a diffusers pipeline. It is left as found, also after an exception.
        plan: from `make_plan`; its `num_steps` must be the number of steps that the call takes.
        output_hook: called with each kept step's output while the pipeline samples, if given; see
            `sdo_ray.backprop.record.OutputHook`. `GradientRecord().watch` is one.
        shifts: step k in 1 .. N -> tensor added to the latents z_k; see `sdo_ray.backprop.trace.trace`.
        elsewhere: if given, the denoiser's backward pass at kept steps is left to the caller: the calls run without a
            graph and are appended here. After `backward` on the images they hold all that it needs; see
            `sdo_ray.backprop.kept`. Parameters outside the denoiser get no gradient then.
        runner: runs the denoiser at steps without a graph, if given; the kept step is exact with any. See
            `sdo_ray.backprop.steps`.
        decode_again: whether the decoder's activations are made again during the backward pass, image by image, in
            place of being kept: the same images, and the same gradient but for rounding. See
            `sdo_ray.backprop.decoder`.
        stochastic: steps with fresh noise after them, if given, and rows that are denoised once until they part. The
            images are then not the plain call's, and have no gradient unless `stochastic.differentiable`; the steps'
            outputs, which `output_hook` sees, have theirs.
        pipeline_call: the call's own keyword arguments (`prompt`, `num_inference_steps`, `generator`, ...).

    Returns:
        Images [B, 3, H, W] in [0, 1]; videos [B, F, 3, H, W]; audio as the pipeline gives it.

    Raises:
        TraceError: `output_type` is not "pt" or "latent", or the pipeline decodes to numpy arrays, the steps disagree
            with the plan, the pipeline has no denoiser or scheduler, a shift is of no step, `elsewhere` is given with a
            plan of coupled steps or copies, what is switched on in the pipeline's networks would falsify the gradient
            (see `sdo_ray.backprop.compatibility`), or nothing in reach of the kept steps requires a gradient.
    """
    output_type = pipeline_call.get("output_type", "pt")
    if output_type not in ("pt", "latent"):
        raise TraceError("output_type", output_type, "'pt' or 'latent': tensors", "leave it out")
    if "output_type" in inspect.signature(type(pipeline).__call__).parameters:
        pipeline_call["output_type"] = output_type
    with trace(pipeline, plan, output_hook, shifts, elsewhere, runner, decode_again, stochastic) as state:
        try:
            images = stacked(pipeline(**pipeline_call)[0])
        except RuntimeError as error:
            if "Can't call numpy() on Tensor that requires grad" not in str(error):
                raise
            raise _no_tensors(pipeline, output_type) from error
    if images is None:
        raise _no_tensors(pipeline, output_type)
    detached = stochastic is not None and not stochastic.differentiable
    if plan.steps and not images.requires_grad and state.latents_have_gradient and not detached:
        raise TraceError(
            "pipeline",
            f"{type(pipeline).__name__} with images that do not depend on its latents",
            "a decoder that uses the latents and has a gradient",
            "sample larger images: an autoencoder that decodes in tiles (Allegro's) makes nothing of less than one",
        )
    if plan.steps and not images.requires_grad and not detached:
        raise TraceError(
            "pipeline",
            f"{type(pipeline).__name__} without a gradient at its images",
            "trained parameters, prompt embeddings or latents with requires_grad=True",
            "add an adapter to the denoiser (its other parameters frozen) before the call",
        )
    return images


def stacked(output: Any) -> torch.Tensor | None:
    """What a pipeline returned, as one tensor; None if it is none. Some return lists, one entry for each prompt."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, list | tuple) and output:
        entries = [entry for entry in map(stacked, output) if entry is not None]
        if len(entries) == len(output) and len({entry.shape for entry in entries}) == 1:
            return torch.stack(entries)
    return None


def _no_tensors(pipeline: Any, output_type: str) -> TraceError:
    return TraceError(
        "output_type",
        f"{output_type!r}, and {type(pipeline).__name__} does not return its images as one tensor",
        "'latent', for a pipeline that decodes to numpy arrays",
        "call with 'latent' and decode with its autoencoder",
    )
