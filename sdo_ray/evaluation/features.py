"""Feature vectors of images, in which diversity and distances are measured, and the actor that computes them.

A feature network is a class: keyword arguments are its options, and calling it with images, float32 [B, 3, H, W] in
[0, 1], gives vectors, float32 [B, d]. An option `device` is filled in; one that is annotated as a `Path` is a
file, and a relative path starts at the settings file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import ray
import torch
from torch import Tensor, nn

from sdo_ray.cluster import cause_of
from sdo_ray.evaluation.feature_registry import feature_class, path_options
from sdo_ray.evaluation.settings import FeatureSettings
from sdo_ray.media.picture import STRIP
from sdo_ray.models.quiet import quiet_libraries
from sdo_ray.settings import Problem, Problems, SettingsError


class EfficientNet:
    """EfficientNet-Lite0's last feature map, [B, 1280]: small, and in the packages of the extra `emoji`.

    Args:
        device: where to compute.
        size: side in pixels to which images are resized, a multiple of 32.
        pooling: how the map becomes one vector.

    Raises:
        ImportError: the packages are missing.
    """

    def __init__(self, *, device: str = "cpu", size: int = 128, pooling: Literal["average", "max"] = "average") -> None:
        from rewards.features import FeatureSettings, ImageFeatures

        self._network = ImageFeatures(FeatureSettings(size, pooling), device)
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        """See the top of this file."""
        return self._network(images.to(self._device))


class TransformersVision:
    """A vision network that transformers loads, such as DINOv2, CLIP or ViT: its pooled output, or the mean of its last
    hidden states if its files have no pooler.

    Args:
        model: a directory or hub id; weights as safetensors.
        device: where to compute.
        size: side in pixels to which images are resized.

    Raises:
        ValueError: weights of other parts are missing.
    """

    def __init__(self, *, model: str, device: str = "cpu", size: int = 224) -> None:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin

        with quiet_libraries():
            self._network, found = AutoModel.from_pretrained(
                model, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        # Missing weights are drawn at random; features must not depend on them.
        missing = set(found["missing_keys"])
        self._has_pooler = not any("pooler." in name for name in missing)
        if lost := sorted(name for name in missing if "pooler." not in name):
            raise ValueError(f"{model!r} lacks weights for {len(lost)} parameters, such as {lost[0]!r}")
        self._network.eval().requires_grad_(False).to(device)
        colours, _ = ImageProcessingMixin.get_image_processor_dict(model)
        self._mean, self._std = (
            torch.tensor(colours[name], device=device).view(1, 3, 1, 1) for name in ("image_mean", "image_std")
        )
        self._device, self._size = device, size

    def __call__(self, images: Tensor) -> Tensor:
        """See the top of this file."""
        images = nn.functional.interpolate(
            images.to(self._device), (self._size, self._size), mode="bicubic", antialias=True
        )
        pixels = (images.clamp(0, 1) - self._mean) / self._std
        # Networks that also read text, such as CLIP, have a method for the images alone.
        network = getattr(self._network, "get_image_features", self._network)
        output = network(pixel_values=pixels)
        if isinstance(output, Tensor):
            return output
        pooled: Tensor | None = output.pooler_output if self._has_pooler else None
        return output.last_hidden_state.mean(dim=1) if pooled is None else pooled.flatten(1)


class FeatureActor:
    """A feature network behind a Ray actor.

    Args:
        name: as in the settings.
        options: of the network.
        num_threads: torch threads of this process.
        device: where to compute, unless the options say.
    """

    def __init__(self, name: str, options: Mapping[str, Any], num_threads: int, device: str) -> None:
        torch.set_num_threads(num_threads)
        kind = feature_class(name)
        placement = {"device": device} if "device" in inspect.signature(kind).parameters else {}
        paths = {
            option: Path(options[option]).expanduser()
            for option in path_options({"name": name}) & options.keys()
            if isinstance(options[option], str)
        }
        self._network = kind(**{**placement, **options, **paths})

    @torch.no_grad()
    def extract(self, images: np.ndarray) -> np.ndarray:
        """Vectors, float32 [B, d], of images, float32 [B, 3, H, W] in [0, 1]; of videos [B, F, 3, H, W] means
        over some frames.

        Raises:
            ValueError: the network returned something other than [B, d].
        """
        x = torch.tensor(images)  # a copy: what Ray hands over is read-only
        if x.ndim == 5:
            vectors = torch.stack([self._network(x[:, f]) for f in STRIP.places(x.shape[1])]).mean(0)
        else:
            vectors = self._network(x)
        if vectors.ndim != 2 or len(vectors) != len(images):
            raise ValueError(f"a feature network returns [{len(images)}, d] here; it returned {list(vectors.shape)}")
        return vectors.float().cpu().numpy()

    def ping(self) -> None:
        """Return once the network is loaded."""


def start_features(settings: FeatureSettings) -> Any:
    """The actor, with its own resources and packages, once it is ready; a dead one is restarted.

    Raises:
        SettingsError: it cannot start.
    """
    actor = (
        ray.remote(FeatureActor)
        .options(
            num_cpus=settings.num_cpus,
            num_gpus=settings.num_gpus,
            runtime_env=settings.runtime_env or None,
            max_restarts=-1,
            max_task_retries=-1,
        )
        .remote(
            settings.name,
            settings.options,
            num_threads=max(1, int(settings.num_cpus)),
            device="cuda" if settings.num_gpus else "cpu",
        )
    )
    try:
        ray.get(actor.ping.options(max_task_retries=0).remote())
    except ray.exceptions.RayActorError as error:
        raise SettingsError(Problem("", f"{settings.name!r} could not start: {cause_of(error)}")) from None
    return actor


def check_features(settings: FeatureSettings) -> None:
    """Refuse a network or options that cannot be, without loading weights.

    Raises:
        SettingsError: there is no such class, it has no such option, or it needs one that is not given.
    """
    parameters = inspect.signature(feature_class(settings.name)).parameters
    with Problems() as problems:
        if unknown := settings.options.keys() - parameters.keys():
            got = f"{settings.name!r} has no {', '.join(sorted(unknown))}"
            problems.add(Problem("options", got, f"it has {', '.join(parameters) or 'none'}", "remove it"))
        needed = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
        if missing := needed - settings.options.keys():
            got = f"{settings.name!r} needs {', '.join(sorted(missing))}"
            problems.add(Problem("options", got, fix="give it"))
