"""What a pipeline call starts from, taken out and put in: the initial latents and the prompts' embeddings.

There is no code per model: the latents are what the scheduler's first step is given, the embeddings what comes first of
the pipeline's `encode_prompt`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sdo_ray.backprop.errors import TraceError
from sdo_ray.backprop.leaving import Left, leaving
from sdo_ray.backprop.patches import replaced_step, subclassed


@torch.no_grad()
def initial_latents(pipeline: Any, **pipeline_call: Any) -> torch.Tensor:
    """The argument `latents` with which `pipeline` draws what it draws with the generators in `pipeline_call`.

    Args:
        pipeline: a diffusers pipeline; it is left as found.
        pipeline_call: the call's keyword arguments. The call is left at the scheduler's first step.

    Returns:
        z_0 / `init_noise_sigma` of the scheduler, which pipelines multiply `latents` by; usually [B, C, h, w].
    """

    def leave(_scheduler: Any, _step: Any, bound: Any) -> Any:
        raise Left(bound.arguments["sample"])

    with replaced_step(pipeline.scheduler, leave):
        z_0: torch.Tensor = leaving(pipeline, pipeline_call)
    return z_0 / getattr(pipeline.scheduler, "init_noise_sigma", 1.0)


@torch.no_grad()
def initial_prompt_embeds(pipeline: Any, **pipeline_call: Any) -> torch.Tensor:
    """What the pipeline's text encoder makes of the prompts in `pipeline_call`, usually [B, tokens, d].

    Raises:
        TraceError: the pipeline has no `encode_prompt`.
    """

    def leave(pipe: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = encode(pipe, *args, **kwargs)
        raise Left(encoded[0] if isinstance(encoded, tuple) else encoded)

    encode = _encoder(pipeline)
    with subclassed(pipeline, encode_prompt=leave):
        return leaving(pipeline, pipeline_call)


@contextmanager
def given_prompt_embeds(pipeline: Any, prompt_embeds: torch.Tensor) -> Iterator[None]:
    """Within the block, the next call of `pipeline` uses these embeddings of its prompts, and their gradient.

    Unlike the call's argument `prompt_embeds` this leaves everything else that is made of the prompts, such as pooled
    embeddings and masks, as it is, and so works with any pipeline alike.

    Args:
        pipeline: a diffusers pipeline; it is left as found, also after an exception.
        prompt_embeds: of the shape of `initial_prompt_embeds`.

    Raises:
        TraceError: the pipeline has no `encode_prompt`.
    """
    encode = _encoder(pipeline)
    given = [prompt_embeds]

    def replacement(pipe: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            encoded = encode(pipe, *args, **kwargs)
        if not given:  # some pipelines encode negative prompts by a second call
            return encoded
        return (given.pop(), *encoded[1:]) if isinstance(encoded, tuple) else given.pop()

    with subclassed(pipeline, encode_prompt=replacement):
        yield


def _encoder(pipeline: Any) -> Any:
    if not hasattr(type(pipeline), "encode_prompt"):
        raise TraceError(
            "prompt_embeds",
            f"{type(pipeline).__name__}, which has no `encode_prompt`",
            "a pipeline that has one",
            "optimise something else, or use another pipeline",
        )
    return type(pipeline).encode_prompt
