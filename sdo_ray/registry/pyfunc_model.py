"""The registered model as MLflow serves it: prompts, what its call takes beside them, and seeds in, PNG images out.

MLflow keeps this very file with the model ("models from code") and runs it where sdo-ray is not installed, so it
imports nothing of this package, unless the model was evaluated with steps that are not computed in full.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from mlflow.pyfunc import PythonModel
from PIL import Image


class RegisteredPipeline(PythonModel):
    """A diffusers pipeline, with its adapter if it has one, called as when it was evaluated."""

    def load_context(self, context: Any) -> None:
        """Load the pipeline, on the GPU if there is one; `model_config={"device": ...}` of `load_model` chooses."""
        self._recipe = json.loads(Path(context.artifacts["recipe"]).read_text())
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device((context.model_config or {}).get("device") or automatic)
        self._pipeline = DiffusionPipeline.from_pretrained(
            context.artifacts.get("pipeline") or self._recipe["base"],
            revision=self._recipe["revision"],
            variant=self._recipe.get("variant"),
            dtype=getattr(torch, self._recipe["dtype"]),
            use_safetensors=True,
        )
        self._pipeline.set_progress_bar_config(disable=True)
        if (decode := self._recipe["decode"]) != "whole":
            vae = self._pipeline.vae
            if decode == "frames":
                vae.use_framewise_decoding = True
            else:
                getattr(vae, {"slices": "enable_slicing", "tiles": "enable_tiling"}[decode])()
        if adapter := context.artifacts.get("adapter"):
            self._pipeline.load_lora_weights(adapter)
        self._pipeline.to(self._device)
        self._images = _images(self._pipeline, self._recipe)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Draw one image a row.

        Args:
            context: not used; MLflow gives it.
            model_input: rows with `prompt`, with the arguments that the recipe's `inputs` name (images as the bytes of
                their files), and, if they have it, `seed`, which fixes a row's noise on every device.
            params: `num_inference_steps`, `guidance_scale` and `batch_size`, where they differ from the recipe.

        Returns:
            The rows with `prompt`, `seed` (drawn, if none was given) and `picture`, PNG bytes.

        Raises:
            ValueError: rows without what the call takes, or that differ in what it takes once.
        """
        inputs = self._recipe.get("inputs", {})
        _check_inputs(inputs, list(model_input.columns))
        call = {name: self._recipe[name] for name in ("num_inference_steps", "guidance_scale", "batch_size")}
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
            # diffusers wants as many negative prompts as prompts; one in the recipe is for all images.
            name: [value] * len(prompts) if name.startswith("negative_prompt") and isinstance(value, str) else value
            for name, value in self._recipe["options"].items()
        }
        # CPU generators, so that the noise is the same on every device.
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        images = self._images(prompt=prompts, generator=noise, output_type="pil", **call, **options)
        return [_png(image) for image in images]


def _images(pipeline: DiffusionPipeline, recipe: dict[str, Any]) -> Callable[..., Any]:
    """The pipeline's call, which returns images, with the recipe's cheap steps if it has any."""
    cheap = {name: recipe[name] for name in ("cache", "fast_copy") if recipe.get(name)}
    if not cheap:
        return lambda **call: pipeline(**call).images
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
        return [picture(x, modality_of(type(pipeline))) for x in draw(pipeline, call, generator, runner)]

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


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


mlflow.models.set_model(RegisteredPipeline())
