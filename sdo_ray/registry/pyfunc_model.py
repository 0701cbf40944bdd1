"""The registered model as MLflow serves it: prompts, what its call takes beside them, and seeds in, images out.

MLflow keeps this very file with the model ("models from code") and runs it where sdo-ray is not installed, so it
imports nothing of this package, unless the model was evaluated with steps that are not computed in full.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from mlflow.pyfunc import PythonModel
from PIL import Image
from torch.utils._pytree import tree_map


class RegisteredPipeline(PythonModel):
    """A diffusers pipeline, with its adapter if it has one, called as when it was evaluated."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline, on the GPU if there is one; `model_config={"device": ...}` of `load_model` chooses."""
        self._recipe = json.loads(Path(context.artifacts["recipe"]).read_text())
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device((context.model_config or {}).get("device") or automatic)
        self._pipeline = _load(context.artifacts.get("pipeline"), self._recipe)
        self._pipeline.set_progress_bar_config(disable=True)
        _set_decoding(self._pipeline, self._recipe["decode"])
        if adapter := context.artifacts.get("adapter"):
            self._pipeline.load_lora_weights(adapter)
        _keep_types(self._pipeline, self._recipe)
        self._pipeline.to(self._device)
        self._images = _images(self._pipeline, self._recipe)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Draw one image, or video, a row.

        Args:
            context: not used; MLflow gives it.
            model_input: rows with `prompt`, with the arguments that the recipe's `inputs` name (images as the bytes of
                their files), and, if they have it, `seed`, which fixes a row's noise on every device.
            params: `num_inference_steps`, `guidance_scale` and `batch_size`, where they differ from the recipe.

        Returns:
            The rows with `prompt`, `seed` (drawn, if none was given) and `picture`: the bytes of a PNG, of a video
            those of an animated WebP.

        Raises:
            ValueError: rows without what the call takes, or that differ in what it takes once; or the model makes
                neither images nor videos.
        """
        inputs = self._recipe.get("inputs", {})
        _check_inputs(inputs, list(model_input.columns))
        call = {name: self._recipe[name] for name in ("num_inference_steps", "guidance_scale", "batch_size")}
        if call["guidance_scale"] is None:
            del call["guidance_scale"]
        call |= params or {}
        batch_size = call.pop("batch_size")
        rows = model_input[["prompt"]].reset_index(drop=True)
        given = model_input["seed"].tolist() if "seed" in model_input.columns else [None] * len(rows)
        seeds = [secrets.randbits(63) if seed is None or seed != seed else int(seed) for seed in given]
        images: list[bytes] = []
        for first in range(0, len(rows), batch_size):
            some = slice(first, first + batch_size)
            given = {name: _argument(name, kind, model_input[name].tolist()[some]) for name, kind in inputs.items()}
            images += self._draw(rows["prompt"].tolist()[some], seeds[some], call | given)
        return rows.assign(seed=seeds, picture=images)

    def _draw(self, prompts: list[str], seeds: list[int], call: dict[str, Any]) -> list[bytes]:
        options = {
            # diffusers wants as many of these texts as prompts; one in the recipe is for all images. JSON has no
            # tuples, which are what SDXL takes its sizes as.
            name: [value] * len(prompts)
            if name.startswith(("negative_prompt", "prompt_")) and isinstance(value, str)
            else tuple(value)
            if name.endswith(("_size", "_top_left")) and isinstance(value, list)
            else value
            for name, value in self._recipe["options"].items()
        }
        # CPU generators, so that the noise is the same on every device.
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        images = self._images(prompt=prompts, generator=noise, output_type="pil", **call, **options)
        return [_file(image) for image in images]


def _load(copied: str | None, recipe: dict[str, Any]) -> DiffusionPipeline:
    """The pipeline, of its own files or of those of the hub."""
    base, revision = copied or recipe["base"], None if copied else recipe["revision"]
    index = DiffusionPipeline.load_config(base, revision=revision)
    absent = {name: None for name, entry in index.items() if entry == [None, None]}  # such as SD3's T5
    types = {name: getattr(torch, dtype) for name, dtype in recipe.get("dtypes", {}).items()}
    return DiffusionPipeline.from_pretrained(
        base,
        revision=revision,
        variant=recipe.get("variant"),
        dtype={"default": getattr(torch, recipe["dtype"])} | types,
        use_safetensors=True,
        **absent,
    )


def _set_decoding(pipeline: DiffusionPipeline, decode: str) -> None:
    """Decode as the recipe says, with whichever components decode."""
    if decode == "whole":
        return
    switch = {"slices": "use_slicing", "tiles": "use_tiling", "frames": "use_framewise_decoding"}[decode]
    for part in pipeline.components.values():
        if not hasattr(part, switch):
            continue
        if decode == "frames":
            part.use_framewise_decoding = True
        else:
            getattr(part, switch.replace("use", "enable"))()


def _keep_types(pipeline: DiffusionPipeline, recipe: dict[str, Any]) -> None:
    """Components of another type than the rest compute in their own: pipelines expect one type.

    A decoder that overflows in float16 is float32.
    """
    types = recipe.get("dtypes", {})
    networks: dict[str, Any] = {k: part for k, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    for name, part in networks.items():
        overflows = recipe["dtype"] == "float16" and getattr(getattr(part, "config", None), "force_upcast", False)
        if overflows and name not in types:
            part.to(torch.float32)
        if not overflows and not types:
            continue
        if hasattr(part, "decode"):
            for method in ("encode", "decode") if hasattr(part, "encode") else ("decode",):
                setattr(part, method, _in_own_type(part, getattr(part, method), 1))
        elif name.endswith(("unet", "transformer", "transformer_2", "decoder", "prior")):  # the denoisers
            part.forward = _in_own_type(part, part.forward, 3)  # timesteps and positions lose digits that they need


def _in_own_type(part: Any, call: Callable[..., Any], dims: int) -> Callable[..., Any]:
    """The call with tensors of at least so many dimensions cast to the type of the component's weights."""
    dtype = part.dtype  # not its first weight's, which some classes keep in float32

    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() >= dims else x

    @wraps(call)
    def cast_call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tree_map(cast, (args, kwargs))
        return call(*args, **kwargs)

    return cast_call


def _images(pipeline: DiffusionPipeline, recipe: dict[str, Any]) -> Callable[..., Any]:
    """The pipeline's call, which returns images, with the recipe's cheap steps if it has any."""
    cheap = {name: recipe[name] for name in ("cache", "fast_copy") if recipe.get(name)}
    if not cheap:
        return lambda **call: pipeline(**call)[0]
    try:
        from sdo_ray.media.modality import modality_of
        from sdo_ray.media.picture import picture
        from sdo_ray.rollout.preparation import runner_of
        from sdo_ray.rollout.sampling import draw
        from sdo_ray.rollout.settings import SamplingSettings
    except ImportError as error:
        raise ImportError(
            f"the recipe of this model has {' and '.join(cheap)}; install sdo-ray, whose steps these are"
        ) from error
    named = {name: recipe[name] for name in ("num_inference_steps", "guidance_scale", "options")}
    runner = runner_of(pipeline, SamplingSettings.model_validate(named | cheap))

    def images(generator: list[torch.Generator], output_type: str, **call: Any) -> Any:
        samples = draw(pipeline, call, generator, runner, checked=True)
        if modality_of(type(pipeline)) == "video":
            return [[picture(frame, "image") for frame in video] for video in samples]
        return [picture(x, modality_of(type(pipeline))) for x in samples]

    return images


def _check_inputs(inputs: dict[str, str], columns: list[str]) -> None:
    if absent := [name for name in inputs if name not in columns]:
        takes = ", ".join(f"{name} ({kind})" for name, kind in inputs.items())
        raise ValueError(
            f"this model draws from a prompt and {takes}: the rows have no column {', '.join(absent)}. "
            "Images are given as the bytes of their files"
        )
    if sounds := [name for name, kind in inputs.items() if kind == "sound"]:
        raise ValueError(f"sounds are not taken here ({', '.join(sounds)}): draw with `sdo sample --input`")


def _argument(name: str, kind: str, values: list[Any]) -> Any:
    """What the pipeline is given for some rows."""
    if kind == "number":
        if len(set(values)) > 1:
            raise ValueError(f"a call takes one {name}, and these rows differ: give params batch_size 1")
        return values[0]
    if kind == "image":
        images = [Image.open(io.BytesIO(value)).convert("RGB") for value in values]
        if len({image.size for image in images}) > 1:
            raise ValueError(f"a call takes {name} of one size, and these rows differ: give params batch_size 1")
        return images
    return values


def _file(made: Any) -> bytes:
    """A PNG, or an animated WebP of 8 frames a second."""
    buffer = io.BytesIO()
    if isinstance(made, list) and made and isinstance(made[0], Image.Image):
        made[0].save(buffer, "WEBP", save_all=True, append_images=made[1:], duration=125, loop=0, quality=90, method=2)
    elif isinstance(made, Image.Image):
        made.save(buffer, format="PNG")
    else:
        raise ValueError(f"this model makes {type(made).__name__}, and images and videos are served: use `sdo sample`")
    return buffer.getvalue()


mlflow.models.set_model(RegisteredPipeline())
