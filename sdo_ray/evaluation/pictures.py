"""Make base and aligned pictures of the same prompts and noise, and have them judged, in parallel on Ray."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from PIL import Image

from sdo_ray.models.adapter import adapter_off, attach_lora, set_adapter
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import autocast, load_pipeline
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.records import load_tensors
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.seeds import generator
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings


@dataclass(frozen=True)
class PictureConfig:
    """What the picture makers need to know."""

    seed: int
    """The run's seed; prompt i has its own noise, the same for both models."""
    model: ModelSettings
    sampling: SamplingSettings
    samplers: SamplerSettings
    policy_version: int
    """The aligned policy's version in the store."""


class PictureMaker:
    """A Ray Data callable: prompts -> both pictures and every judge's scores of both.

    Args:
        config: what to do.
        store: handle of the `PolicyStore`.
        judges: reward actors by name.
    """

    def __init__(self, config: PictureConfig, store: Any, judges: Mapping[str, Any]) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        self._judges = RewardClient(judges, learned=())
        device = "cuda" if config.samplers.num_gpus else "cpu"
        self._pipeline = load_pipeline(config.model.base, config.model.dtype, device)
        denoisers = find_denoisers(self._pipeline)
        attach_lora(denoisers, config.model.lora)
        _, [weights] = ray.get(store.newest.remote(config.policy_version))
        set_adapter(denoisers, load_tensors(ray.get(weights)))

    def __call__(self, block: pa.Table) -> pa.Table:
        """`index` int64, `prompt` -> also `base` and `aligned` PNG, and `base.NAME`, `aligned.NAME` float64 scores."""
        prompts, indices = block.column("prompt").to_pylist(), block.column("index").to_pylist()
        with adapter_off(self._pipeline):
            base = self._sample(prompts, indices)
        columns: dict[str, Any] = {"index": indices, "prompt": prompts}
        for which, images in (("base", base), ("aligned", self._sample(prompts, indices))):
            columns[which] = [_png(image) for image in images]
            scores, _ = self._judges(images, prompts)
            columns |= {f"{which}.{name}": values.double().tolist() for name, values in scores.items()}
        return pa.table(columns)

    def _sample(self, prompts: Sequence[str], indices: Sequence[int]) -> torch.Tensor:
        with torch.no_grad(), autocast(self._pipeline):
            images = self._pipeline(
                generator=[generator(self._config.seed, "evaluation noise", index) for index in indices],
                output_type="pt",
                **self._config.sampling.pipeline_call(prompts),
            ).images
        return images.float().cpu()


def make_pictures(prompts: Sequence[str], config: PictureConfig, store: Any, judges: Mapping[str, Any]) -> pa.Table:
    """One row a prompt, in order; see `PictureMaker`."""
    size = config.samplers.batch_size
    blocks = [
        pa.table({"index": range(first, first + len(part)), "prompt": list(part)})
        for first in range(0, len(prompts), size)
        if (part := prompts[first : first + size])
    ]
    dataset = ray.data.from_arrow(blocks).map_batches(
        PictureMaker,
        fn_constructor_kwargs={"config": config, "store": store, "judges": judges},
        compute=ray.data.ActorPoolStrategy(size=min(config.samplers.count, len(blocks))),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=config.samplers.num_cpus,
        num_gpus=config.samplers.num_gpus,
    )
    # In a task, so that what Ray Data says of its actors goes to Ray's log files and not to the driver's screen.
    return ray.get(ray.remote(num_cpus=0)(_collect).remote(dataset, ray.data.DataContext.get_current()))


def _collect(dataset: ray.data.Dataset, context: ray.data.DataContext) -> pa.Table:
    ray.data.DataContext._set_current(context)
    return pa.concat_tables(ray.get(dataset.to_arrow_refs())).sort_by("index")


def choose_prompts(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` prompts without repetition, the same ones in the same order for a seed."""
    return [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[:count]]


def open_picture(png: bytes) -> Image.Image:
    """A picture from its PNG bytes."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def _png(image: torch.Tensor) -> bytes:
    array = (image.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()
