"""Evaluations with made-up images and scores."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from PIL import Image

from sdo_ray.evaluation.result import Evaluation

COLOURS = {"base": "gray", "candidate": "blue", "champion": "orange"}


def image(colour: str, size: int = 16) -> bytes:
    """A square of one colour as PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def made_up(
    prompts: Sequence[str],
    *,
    categories: Sequence[str | None] | None = None,
    champion: bool = False,
    details: dict[str, Any] | None = None,
    **scores: Sequence[float],
) -> Evaluation:
    """An evaluation with one row for each of `prompts`, which may repeat.

    Args:
        prompts: of the rows.
        categories: of the rows.
        champion: whether there is one.
        details: as they are.
        scores: `quality=[...]` are the candidate's; the base has zeros and the champion half of them.
    """
    roles = ["base", "candidate", *["champion"] * champion]
    count = len(prompts)
    columns: dict[str, Any] = {
        "index": pa.array(range(count), pa.int64()),
        "prompt": pa.array(prompts, pa.string()),
        "category": pa.array(categories or [None] * count, pa.string()),
    }
    shares = {"base": 0.0, "candidate": 1.0, "champion": 0.5}
    for role in roles:
        columns[f"{role}.picture"] = [image(COLOURS[role])] * count
        for name, values in scores.items():
            own = [value * shares[role] for value in values]
            columns[f"{role}.{name}"] = pa.array(own, pa.float64())
    models = {role: f"models/{role}" for role in roles}
    sets = {"frechet_to_base": dict.fromkeys(roles[1:], 2.5), "seconds_per_image": dict.fromkeys(roles, 0.5)}
    return Evaluation("made-up", models, pa.table(columns), sets, details or {})
