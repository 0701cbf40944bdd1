"""The comparison that closes an alignment run: its policy against the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sdo_ray.evaluation.images import ImageConfig, image_blocks, make_images, side_by_side
from sdo_ray.evaluation.models import ModelSource

ROLES = ("base", "aligned")


def base_and_aligned(
    prompts: Sequence[str], config: ImageConfig, base: ModelSource, aligned: ModelSource, evaluators: Mapping[str, Any]
) -> pa.Table:
    """One row a prompt, in order: `index`, `prompt`, `base` and `aligned` PNG, and each one's scores, `base.NAME`."""
    indices, size = range(len(prompts)), config.samplers.batch_size
    blocks = [block for role in ROLES for block in image_blocks(role, indices, prompts, size)]
    parts = list(make_images(blocks, config, dict(zip(ROLES, (base, aligned), strict=True)), evaluators))
    table = side_by_side(parts, ROLES)
    return table.rename_columns([name.removesuffix(".picture") for name in table.column_names])
