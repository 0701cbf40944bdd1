"""A pipeline from its class alone: parts from its constructor's annotations, inputs from its call's signature."""

import inspect
import typing
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import torch
import transformers
from diffusers import SchedulerMixin

from .parts import TINY, part
from .processors import qwen_vl_processor
from .text import encoder, tokenizer

SIZE = 32
STEPS = 2


def classes(annotation: Any) -> list[str]:
    """Names of the classes in an annotation, through unions."""
    parts = typing.get_args(annotation) or (annotation,)
    return [p.__name__ for p in parts if inspect.isclass(p) and p is not type(None)]


def component(name: str, parameter: inspect.Parameter) -> Any:
    """One constructor argument, tiny.

    Raises:
        LookupError: nothing here makes one.
    """
    if "scheduler" in name:
        return scheduler(classes(parameter.annotation))
    if processor := {"Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor"} & set(
        classes(parameter.annotation)
    ):
        return qwen_vl_processor(processor.pop())
    if "tokenizer" in name:
        return tokenizer(77 if "CLIPTokenizer" in classes(parameter.annotation) else 16)
    for cls in classes(parameter.annotation):
        if cls.endswith("Guidance"):
            return getattr(diffusers, cls)()
        cls = {"Gemma2PreTrainedModel": "Gemma2Model", "GemmaPreTrainedModel": "GemmaModel"}.get(cls, cls)
        if cls in TINY:
            return part(cls)
        if hasattr(transformers, cls):
            if "ImageProcessor" in cls or cls == "CLIPProcessor":
                size = {"height": SIZE, "width": SIZE}
                return transformers.CLIPImageProcessorPil(size=size, crop_size=size)
            try:
                return encoder(cls)
            except KeyError:
                continue
    raise LookupError(f"no tiny {name} of {parameter.annotation}")


def scheduler(names: list[str], **changes: Any) -> Any:
    """The first class that can be made without arguments; DDIM, with `changes`, where any will do."""
    for name in names:
        cls = getattr(diffusers, name, None)
        if cls is None or cls is SchedulerMixin or name == "KarrasDiffusionSchedulers":
            continue
        if name in ("DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler"):
            break
        return cls()
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.DDIMScheduler(**betas, clip_sample=False, steps_offset=1, **changes)


def assemble(name: str, given: dict[str, Any]) -> Any:
    """The pipeline class `name`, with `given` constructor arguments and tiny ones for the rest."""
    cls = getattr(diffusers, name)
    torch.manual_seed(0)
    arguments = {}
    for parameter in list(inspect.signature(cls.__init__, eval_str=True).parameters.values())[1:]:
        if parameter.name in given:
            value = given[parameter.name]
            arguments[parameter.name] = value() if callable(value) and not isinstance(value, torch.nn.Module) else value
        elif parameter.name in ("safety_checker", "watermarker", "requires_safety_checker", "add_watermarker"):
            arguments[parameter.name] = None if parameter.annotation is not bool else False
        elif parameter.name in ("image_encoder", "feature_extractor") and parameter.name in cls._optional_components:
            arguments[parameter.name] = None
        elif parameter.default is parameter.empty or parameter.name.startswith(("text_encoder", "tokenizer")):
            arguments[parameter.name] = component(parameter.name, parameter)
    if "requires_safety_checker" in arguments:
        arguments["requires_safety_checker"] = False
    return cls(**arguments)


def image(seed: int = 0, size: int = SIZE) -> PIL.Image.Image:
    """A random image."""
    return PIL.Image.fromarray(np.random.RandomState(seed).randint(0, 255, (size, size, 3), dtype=np.uint8))


def inputs(pipe: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the call: `given`, what the signature requires, and what keeps it small."""
    small = {
        "num_inference_steps": STEPS,
        "height": SIZE,
        "width": SIZE,
        "num_frames": 5,
        "guidance_scale": 3.0,
        "max_sequence_length": 16,
        "output_type": "pt",
    }
    common = {
        "prompt": "a cat",
        "negative_prompt": "",
        "image": image(),
        "mask_image": image(1).convert("L"),
        "control_image": image(2),
        "control_mask": image(1).convert("L"),
        "video": [image(i) for i in range(5)],
        "strength": 1.0,
    }
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(type(pipe).__call__).parameters.values():
        if parameter.name in small:
            arguments[parameter.name] = small[parameter.name]
        elif parameter.name in ("prompt", "image", "mask_image", "control_image", "control_mask", "video", "strength"):
            arguments[parameter.name] = common[parameter.name]
    arguments |= given
    return {k: v for k, v in arguments.items() if v is not ...}
