"""From finished parts to an evaluation: scores, diversity, distances and cost, by image and by set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sdo_ray.evaluation.distances import (
    Array,
    cosine_distances,
    frechet_distance,
    mean_pairwise_distance,
    pixel_distance,
)
from sdo_ray.evaluation.images import side_by_side
from sdo_ray.evaluation.result import BASE
from sdo_ray.media.picture import open_image

DIVERSITY, DISTANCE, PIXELS = "diversity", "distance_from_base", "pixel_distance_from_base"
"""Metrics of images that are no rewards: mean pairwise feature distance of a prompt's images; feature distance and
root mean square pixel difference of an image from the base's of the same prompt and noise."""

FRECHET_BASE, FRECHET_REFERENCE, SECONDS = "frechet_to_base", "frechet_to_reference", "seconds_per_image"
"""Metrics of sets: Frechet distance of the features to those of the base's and of the reference's images; median
seconds of the pipeline call for an image."""

SWAPS = 19
"""Permutations of a Frechet distance's yardstick: the largest is exceeded by chance in 5 %."""

ABOUT: Mapping[str, str] = {
    DIVERSITY: "Mean feature distance (1 - cosine) between images of one prompt with different noise.",
    DISTANCE: "Feature distance (1 - cosine) from the base's image of the same prompt and noise.",
    PIXELS: "Root mean square pixel difference, in [0, 1], from the base's image of the same prompt and noise.",
    FRECHET_BASE: "Fréchet distance of the images' features, as a set, from those of the base's images.",
    FRECHET_REFERENCE: "Fréchet distance of the images' features, as a set, from those of the reference images.",
    SECONDS: "Median seconds of the pipeline's call for one image, on the machine that ran the evaluation.",
}
"""What the metrics other than rewards say, for people."""


def image_metrics(
    parts: Sequence[pa.Table], roles: Sequence[str], questions: pa.Table, pixels: Mapping[str, Array]
) -> pa.Table:
    """The table of an `Evaluation`; its images' files are there if they are in the parts.

    Args:
        parts: of `make_images`, every index of every role once.
        roles: the base first.
        questions: of `draw_questions`.
        pixels: role -> `PIXELS` of the images, of `pixel_distances`; empty without.
    """
    table = side_by_side(parts, roles, questions)
    columns: dict[str, Any] = {name: table[name] for name in table.column_names}
    vectors = {role: features_of(parts, role) for role in roles}
    prompts = np.asarray(questions["prompt"].to_pylist(), dtype=object)
    several = len(prompts) > len(set(prompts))
    for role in roles:
        own, base = vectors[role], vectors[BASE]
        if own is not None and base is not None:
            if several:
                columns[f"{role}.{DIVERSITY}"] = _diversity(own, prompts)
            columns[f"{role}.{DISTANCE}"] = cosine_distances(own, base) if role != BASE else np.zeros(len(own))
        if len(pixels[role]):
            columns[f"{role}.{PIXELS}"] = pixels[role]
    return pa.table(columns)


def pixel_distances(pictures: Iterable[pa.Table], roles: Sequence[str]) -> dict[str, Array]:
    """Role -> `PIXELS` of every image, [n].

    Args:
        pictures: `ROLE.picture`, some rows after others: decoded, all images are many times their files.
        roles: the base first.
    """
    distances: dict[str, list[float]] = {role: [] for role in roles}
    for some in pictures:
        for row in range(len(some)):
            images = {role: open_image(some[f"{role}.picture"][row].as_py()) for role in roles}
            for role in roles:
                distances[role].append(pixel_distance(images[role], images[BASE]))
    return {role: np.array(found) for role, found in distances.items()}


def set_metrics(
    parts: Sequence[pa.Table], roles: Sequence[str], reference: Array | None
) -> dict[str, dict[str, float]]:
    """Metric -> role -> value, of whole sets.

    Args:
        parts: as for `image_metrics`.
        roles: the base first.
        reference: features of the reference images [n, d], if there are any.
    """
    vectors = {role: found for role in roles if (found := features_of(parts, role)) is not None}
    metrics: dict[str, dict[str, float]] = {}
    for metric, other in ((FRECHET_BASE, vectors.get(BASE)), (FRECHET_REFERENCE, reference)):
        distances = {role: _frechet(own, other) for role, own in vectors.items() if own is not other}
        if any(distance is not None for distance in distances.values()):
            metrics[metric] = {role: distance for role, distance in distances.items() if distance is not None}
    everything = pa.concat_tables([part.select(["role", "seconds"]) for part in parts])
    metrics[SECONDS] = {
        role: float(np.median(everything.filter(pc.equal(everything["role"], role))["seconds"].to_numpy()))
        for role in roles
    }
    return metrics


def frechet_yardsticks(parts: Sequence[pa.Table], roles: Sequence[str]) -> dict[str, Any]:
    """What Frechet distances come to by chance, to compare those of `set_metrics` with; empty without features.

    Returns:
        `frechet_between_halves_of_base`, for distances to the reference: between every other image of the base and the
        rest, what two samples of one model, each half as large, are apart by the bias of small samples alone.
        `frechet_to_base_by_chance`, role -> the largest of `SWAPS` distances after the role and the base swapped images
        in half of all pairs of one prompt and noise, at random: a distance to the base above it comes about in one of
        `SWAPS` + 1 cases if the two models draw alike (permutation test of pairs).
    """
    base = features_of(parts, BASE)
    if base is None or len(base) < 4:
        return {}
    draw, chance = np.random.default_rng(0), {}
    for role in roles:
        if role != BASE and (own := features_of(parts, role)) is not None:
            pairs = np.stack([own, base])
            pairs = pairs[:, np.isfinite(pairs).all(axis=(0, 2))]
            chance[role] = max(_swapped(pairs, swap) for swap in draw.random((SWAPS, pairs.shape[1])) < 0.5)
    return {"frechet_between_halves_of_base": _frechet(base[::2], base[1::2]), "frechet_to_base_by_chance": chance}


def _swapped(pairs: Array, swap: np.ndarray) -> float:
    """Frechet distance of the two sets `pairs` [2, n, d] with the members of some pairs, [n], changed."""
    a, b = np.where(swap[:, None], pairs[::-1], pairs)
    return _frechet(a, b) or 0.0


def features_of(parts: Sequence[pa.Table], role: str) -> Array | None:
    """A role's feature vectors [n, d] in the order of the indices; None if none were computed."""
    if "features" not in parts[0].column_names:
        return None
    everything = pa.concat_tables([part.select(["role", "index", "features"]) for part in parts])
    own = everything.filter(pc.equal(everything["role"], role)).sort_by("index")
    vectors = own["features"].combine_chunks()
    rows: Array = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(own), -1).astype(np.float64)
    return rows


def _frechet(a: Array, b: Array | None) -> float | None:
    """Of the vectors that are finite; None with fewer than two, or nothing to compare with."""
    if b is None:
        return None
    a, b = (x[np.isfinite(x).all(axis=1)] for x in (a, b))
    return frechet_distance(a, b) if min(len(a), len(b)) >= 2 else None


def _diversity(vectors: Array, prompts: np.ndarray) -> Array:
    """Each row's value is its prompt's."""
    values = np.full(len(prompts), np.nan)
    for prompt in set(prompts):
        values[prompts == prompt] = mean_pairwise_distance(vectors[prompts == prompt])
    return values
