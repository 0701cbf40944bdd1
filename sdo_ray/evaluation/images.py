"""Make several models' images of the same prompts and noise, and have them evaluated, in parallel on Ray."""

from __future__ import annotations

import gc
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from sdo_ray.backprop import StepRunner
from sdo_ray.blocks import map_blocks
from sdo_ray.evaluation.models import ModelSource
from sdo_ray.evaluation.result import FILES
from sdo_ray.media.files import to_file
from sdo_ray.media.modality import modality_of, sampling_rate
from sdo_ray.media.picture import picture, to_png
from sdo_ray.prompts.inputs import COLUMN, Prompts, from_column
from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.reward_client import RewardClient
from sdo_ray.rollout.sampling import draw_images
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SCORE = "score."
"""What the names of a part's score columns start with."""


@dataclass(frozen=True)
class ImageConfig:
    """What the image makers need to know."""

    seed: int
    """The run's seed; each index has its own noise, the same for all models."""
    sampling: SamplingSettings
    samplers: SamplerSettings


class ImageMaker:
    """A Ray Data callable that holds one model at a time: prompts -> images, scores and features.

    Args:
        config: what to do.
        models: role -> model.
        evaluators: reward actors by name.
        features: a `FeatureActor`, or None for none.
    """

    def __init__(
        self, config: ImageConfig, models: Mapping[str, ModelSource], evaluators: Mapping[str, Any], features: Any
    ) -> None:
        torch.set_num_threads(max(1, int(config.samplers.num_cpus)))
        self._config = config
        self._models = models
        self._evaluators = RewardClient(evaluators, learned=())
        self._features = features
        self._role: str | None = None
        self._pipeline: DiffusionPipeline | None = None
        self._runner: StepRunner | None = None

    def __call__(self, block: pa.Table) -> pa.Table:
        """A block of `image_blocks` -> a part, see `make_images`."""
        columns = block.to_pydict()
        pipeline = self._become(columns["role"][0])
        inputs = from_column(columns.get(COLUMN, ()))
        start = time.perf_counter()
        images = draw_images(
            pipeline,
            self._config.sampling,
            self._config.seed,
            columns["prompt"],
            columns["index"],
            self._runner,
            inputs,
        )
        seconds = (time.perf_counter() - start) / len(images)
        vectors = None if self._features is None else self._features.extract.remote(images.numpy())
        scores, _ = self._evaluators(images, Prompts(columns["prompt"], inputs))
        part: dict[str, Any] = columns | _files(pipeline, images) | {"seconds": [seconds] * len(images)}
        part |= {SCORE + name: values.double().tolist() for name, values in scores.items()}
        if vectors is not None:
            part["features"] = pa.array(list(ray.get(vectors)), pa.list_(pa.float32()))
        return pa.table(part)

    def _become(self, role: str) -> DiffusionPipeline:
        if self._pipeline is None or role != self._role:
            # The one model is let go before the other is loaded: two may not fit.
            self._pipeline = self._runner = None
            gc.collect()
            on_gpu = self._config.samplers.num_gpus > 0
            if on_gpu:
                torch.cuda.empty_cache()
            pipeline = self._models[role].load("cuda" if on_gpu else "cpu")
            self._runner = prepare(pipeline, self._config.sampling, self._config.samplers)
            self._pipeline = pipeline
            self._role = role
        return self._pipeline


def _files(pipeline: DiffusionPipeline, samples: torch.Tensor) -> dict[str, list[bytes]]:
    """`picture` and, of what is no image, `media`."""
    modality = modality_of(type(pipeline))
    files = {"picture": [to_png(picture(x, modality)) for x in samples]}
    if modality != "image":
        rate = sampling_rate(pipeline) if modality == "audio" else None
        files["media"] = [to_file(x, modality, rate) for x in samples]
    return files


def image_blocks(
    roles: Iterable[str], questions: pa.Table, size: int, done: Collection[tuple[str, int]] = ()
) -> list[pa.Table]:
    """The work as blocks of at most `size` rows, one model's after another's: `role`, `index` int64, `prompt`,
    and what else the questions give the pipeline.

    Args:
        roles: the models.
        questions: of `draw_questions`.
        size: images made at once.
        done: (role, index) of the images that are there already.
    """
    blocks = []
    for role in roles:
        left = [row for row in questions.to_pylist() if (role, row["index"]) not in done]
        for first in range(0, len(left), size):
            part = left[first : first + size]
            columns = {
                "role": [role] * len(part),
                "index": pa.array([row["index"] for row in part], pa.int64()),
                "prompt": [row["prompt"] for row in part],
            }
            columns |= {COLUMN: [row[COLUMN] for row in part]} if COLUMN in questions.column_names else {}
            blocks.append(pa.table(columns))
    return blocks


def make_images(
    blocks: Sequence[pa.Table],
    config: ImageConfig,
    models: Mapping[str, ModelSource],
    evaluators: Mapping[str, Any],
    features: Any = None,
) -> Iterator[pa.Table]:
    """Do the work of `image_blocks`, and yield it part by part as it is done.

    Args:
        blocks: those of one model after those of another, for a worker that changes models loads again.
        config: of the workers.
        models: role -> model.
        evaluators: reward actors by name.
        features: a `FeatureActor`, or None for none.

    Yields:
        Tables: the columns of a block, `picture` PNG bytes that show a sample, `media` bytes of a file that plays it if
        it is no image (see `sdo_ray.media`), `seconds` of the pipeline call for each image,
        `score.NAME` float64 of every evaluator and, if asked for, `features` list<float32>.
    """
    yield from map_blocks(
        blocks,
        ImageMaker,
        {"config": config, "models": models, "evaluators": evaluators, "features": features},
        count=config.samplers.count,
        resources=config.samplers,
    )


def side_by_side(parts: Sequence[pa.Table], roles: Iterable[str], questions: pa.Table) -> pa.Table:
    """Parts of `make_images` as the table of an `Evaluation`: the columns of `questions`, `ROLE.picture` and
    `ROLE.NAME` scores.

    Args:
        parts: with pictures or without; every index of every role once.
        roles: the models, in the order of the columns.
        questions: of `draw_questions`, in the order of the rows.
    """
    everything = pa.concat_tables(parts)
    columns: dict[str, Any] = {name: questions[name] for name in questions.column_names}
    for role in roles:
        own = everything.filter(pc.equal(everything["role"], role)).sort_by("index")
        assert own["index"].equals(questions["index"]), f"the images of {role} are not those that were asked for"
        columns |= {f"{role}.{name}": own[name] for name in FILES if name in own.column_names}
        columns |= {
            f"{role}.{name.removeprefix(SCORE)}": own[name] for name in own.column_names if name.startswith(SCORE)
        }
    return pa.table(columns)
