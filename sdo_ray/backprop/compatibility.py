"""What is switched on in a pipeline's networks and would falsify a gradient is refused by name, before sampling starts.

The kept step has to compute the denoiser itself, with a derivative, on weights that are still there when the backward
pass needs them. What is not named here takes part in it as it is (forward hooks, compiled code, quantised weights) or
is bypassed (`sdo_ray.backprop.caches`). The table in docs/method.md has both.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sdo_ray.backprop.caches import hooks_of, is_cache
from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.plan import BackpropPlan
from sdo_ray.backprop.transitions import StochasticSteps

OTHER_CACHES = frozenset({"DeepCache", "cache_dit", "para_attn"})
"""Packages that put a cache of their own into a denoiser, by its forwards or its blocks."""

_ON = "without hooks that move its weights: remove_all_hooks() of the pipeline, and to(device)"


def check_networks(pipeline: Any, denoisers: Mapping[str, torch.nn.Module], elsewhere: bool) -> None:
    """Refuse what makes the gradient of a kept step wrong.

    Args:
        pipeline: a diffusers pipeline.
        denoisers: its denoisers by component name.
        elsewhere: whether kept denoiser calls get no graph here.

    Raises:
        TraceError: `torch.inference_mode` is on; a denoiser has quantised activations, a cache of another package or
            an unknown stateful hook; a denoiser has a cache and gradient checkpointing; hooks take the weights of a
            denoiser or of another network in the gradient's way before the backward pass. The last two not for
            denoisers with `elsewhere`.
    """
    if torch.is_inference_mode_enabled():
        raise TraceError("torch.inference_mode", "on", "off: it allows no gradient", "call outside of it")
    for name, denoiser in denoisers.items():
        field = f"pipeline.{name}"
        _check_runs_itself(field, denoiser)
        if not elsewhere:
            _check_blocks_run_once(field, denoiser)
            _check_keeps_weights(field, denoiser)
    for name, network in pipeline.components.items():
        if isinstance(network, torch.nn.Module) and name not in denoisers and not _is_frozen_text_encoder(network):
            _check_keeps_weights(f"pipeline.{name}", network)


def check_stochastic(plan: BackpropPlan, denoisers: Mapping[str, torch.nn.Module], stochastic: StochasticSteps) -> None:
    """Refuse what does not go with stochastic steps and groups.

    Raises:
        TraceError: the plan couples steps, has copies or ends before the last step; a stochastic step is not in
            0 .. N-2; a denoiser has a cache, which rows would leave behind where they part.
    """
    if not plan.is_of_single_calls or plan.reward_at is not None:
        legal = "a plan of single calls whose reward sees the sample"
        raise TraceError("stochastic", plan.describe(), legal, "use sdo, flowbp-sparse, or draft with K = 1")
    if outside := sorted(k for k in stochastic.transitions if not 0 <= k < plan.num_steps - 1):
        raise TraceError("stochastic", outside, f"steps 0 .. {plan.num_steps - 2}", "leave the last step as it is")
    for name, denoiser in denoisers.items():
        cache = next((hook for _, hook in hooks_of(denoiser) if is_cache(hook)), None)
        if cache is not None and stochastic.branching.splits:
            got = f"groups, and a cache in the denoiser ({type(cache).__name__})"
            raise TraceError(f"pipeline.{name}", got, "one of them", "disable_cache()")


def _check_runs_itself(field: str, denoiser: torch.nn.Module) -> None:
    """A kept step must compute the denoiser, by operations that have a derivative."""
    for part in denoiser.modules():
        if what := _quantised_activations(part):
            legal = "quantised weights at most: rounding activations has no derivative"
            raise TraceError(field, what, legal, "quantise the weights alone, or load it unquantised")
        forward = vars(part).get("forward")
        for origin in (type(part).__module__, getattr(forward, "__module__", None) or ""):
            if (package := origin.partition(".")[0]) in OTHER_CACHES:
                legal = "diffusers' caches, which a kept step goes past"
                raise TraceError(field, f"a cache of {package}", legal, "switch it off, or use enable_cache")
    for _, hook in hooks_of(denoiser):
        if hook._is_stateful and not is_cache(hook):
            got = f"a hook that remembers earlier calls, {type(hook).__module__}.{type(hook).__name__}"
            legal = "hooks without a state, and diffusers' own caches"
            raise TraceError(field, got, legal, "remove it from the denoiser's HookRegistry for this call")


def _check_blocks_run_once(field: str, denoiser: torch.nn.Module) -> None:
    """Blocks run again by the backward pass would find the cache as it is then."""
    cache = next((hook for _, hook in hooks_of(denoiser) if is_cache(hook)), None)
    if cache is not None and getattr(denoiser, "is_gradient_checkpointing", False):
        got = f"gradient checkpointing and a cache, {type(cache).__name__}"
        fix = "disable_cache() or disable_gradient_checkpointing(); or a plan with checkpoint, which has both"
        raise TraceError(field, got, "one of them: the backward pass runs blocks again", fix)


def _check_keeps_weights(field: str, network: torch.nn.Module) -> None:
    """The backward pass must find the weights that the forward pass had, where they were and of their dtype."""
    for part, hook in hooks_of(network):
        kind = type(hook).__name__
        if "GroupOffloading" in kind:
            raise TraceError(field, f"group offloading ({kind})", _ON, "leave enable_group_offload out")
        # A linear layer's graph holds the cast weight by itself, which has to be that of no trained parameter.
        if kind == "LayerwiseCastingHook" and not (isinstance(part, torch.nn.Linear) and _is_frozen(part)):
            what = type(part).__name__ if _is_frozen(part) else f"trained {type(part).__name__}"
            legal = "layerwise casting of frozen linear layers alone"
            fix = "name the others in skip_modules_pattern of enable_layerwise_casting"
            raise TraceError(field, f"layerwise casting of a {what}", legal, fix)
    for part in network.modules():
        for hook in _accelerate_hooks(part):
            kind = type(hook).__name__
            if getattr(hook, "no_grad", False):
                legal = "hooks that let gradients through"
                raise TraceError(field, f"a hook that runs a part under no_grad ({kind})", legal, "remove it")
            if kind == "CpuOffload" or getattr(hook, "offload", False):
                fix = "leave enable_model_cpu_offload and enable_sequential_cpu_offload out"
                raise TraceError(field, f"offloading ({kind})", _ON, fix)


def _quantised_activations(part: torch.nn.Module) -> str | None:
    """The class that rounds the activations of this module, None if none does."""
    if type(part).__module__.startswith(("torch.ao.nn.quantized", "nunchaku")):
        return f"{type(part).__module__}.{type(part).__name__}"
    if getattr(part, "activation_qtype", None) is not None:  # quanto
        return f"{type(part).__name__} with activations of {part.activation_qtype}"
    for p in part.parameters(recurse=False):
        kind = type(p.data)
        if not kind.__module__.startswith("torchao"):
            continue
        for name in ("act_quant_kwargs", "activation_quantization"):
            if getattr(p.data, name, None) is not None:
                return f"{kind.__name__} with {name}"
        if kind.__name__ == "LinearActivationQuantizedTensor":
            return kind.__name__
    return None


def _accelerate_hooks(part: torch.nn.Module) -> Iterator[Any]:
    """The hooks that accelerate has put on this module."""
    hook = vars(part).get("_hf_hook")
    if hook is not None:
        yield from getattr(hook, "hooks", (hook,))  # several are in one that runs them in turn


def _is_frozen(part: torch.nn.Module) -> bool:
    return not any(p.requires_grad for p in part.parameters())


def _is_frozen_text_encoder(network: torch.nn.Module) -> bool:
    """Text encoders take no part in a gradient unless they are trained: their input is tokens."""
    return type(network).__module__.startswith("transformers.") and _is_frozen(network)
