"""From parts to the table and the set metrics."""

import math

import numpy as np
import pyarrow as pa
import pytest

from sdo_ray.evaluation.distances import frechet_distance, mean_pairwise_distance
from sdo_ray.evaluation.images import side_by_side
from sdo_ray.evaluation.metrics import frechet_yardsticks, image_metrics, pixel_distances, set_metrics
from tests.support.evaluations import image

ROLES = ["base", "candidate"]
PROMPTS = ["a", "b", "a", "b"]
QUESTIONS = pa.table({"index": range(4), "prompt": PROMPTS, "category": pa.array(["x", None, "x", None])})
VECTORS = {role: np.random.default_rng(i).normal(size=(4, 3)) for i, role in enumerate(ROLES)}


def part(role: str, indices: list[int], *, features: bool = True, colour: str | None = None) -> pa.Table:
    columns = {
        "role": [role] * len(indices),
        "index": pa.array(indices, pa.int64()),
        "prompt": [PROMPTS[i] for i in indices],
        "picture": [image(colour or ("black" if role == "base" else "white"))] * len(indices),
        "seconds": [float(i) for i in indices],
        "score.quality": [10.0 * (role == "candidate") + i for i in indices],
    }
    if features:
        rows = [VECTORS[role][i].astype(np.float32) for i in indices]
        columns["features"] = pa.array(rows, pa.list_(pa.float32()))
    return pa.table(columns)


# In the order in which workers may finish.
PARTS = [part("candidate", [2, 3]), part("base", [0, 1]), part("candidate", [0, 1]), part("base", [2, 3])]


def measured(parts: list[pa.Table], roles: list[str], questions: pa.Table) -> pa.Table:
    pictures = side_by_side(parts, roles, questions).select([f"{role}.picture" for role in roles])
    return image_metrics(parts, roles, questions, pixel_distances([pictures.slice(0, 1), pictures.slice(1)], roles))


def test_one_row_an_index_in_order() -> None:
    table = measured(PARTS, ROLES, QUESTIONS)
    assert table.column_names == [
        "index",
        "prompt",
        "category",
        *("base.picture", "base.quality", "candidate.picture", "candidate.quality"),
        *("base.diversity", "base.distance_from_base", "base.pixel_distance_from_base"),
        *("candidate.diversity", "candidate.distance_from_base", "candidate.pixel_distance_from_base"),
    ]
    assert table["prompt"].to_pylist() == PROMPTS
    assert table["category"].to_pylist() == ["x", None, "x", None]
    assert table["base.quality"].to_pylist() == [0, 1, 2, 3]
    assert table["candidate.quality"].to_pylist() == [10, 11, 12, 13]
    assert table["candidate.picture"][0].as_py() == image("white")


def test_diversity_is_a_prompt_s_and_the_same_in_all_of_its_rows() -> None:
    table = measured(PARTS, ROLES, QUESTIONS)
    for role in ROLES:
        found = table[f"{role}.diversity"].to_pylist()
        vectors = VECTORS[role].astype(np.float32).astype(float)
        for first, rows in ((0, [0, 2]), (1, [1, 3])):
            assert found[first] == found[first + 2] == pytest.approx(mean_pairwise_distance(vectors[rows]))


def test_distances_from_the_base() -> None:
    table = measured(PARTS, ROLES, QUESTIONS)
    assert table["base.distance_from_base"].to_pylist() == [0.0] * 4
    assert table["base.pixel_distance_from_base"].to_pylist() == [0.0] * 4
    assert table["candidate.pixel_distance_from_base"].to_pylist() == [1.0] * 4
    a, b = VECTORS["base"][2], VECTORS["candidate"][2]
    expected = 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert table["candidate.distance_from_base"][2].as_py() == pytest.approx(expected, abs=1e-6)


def test_without_features_and_with_one_image_a_prompt() -> None:
    parts = [part(role, [0, 1], features=False) for role in ROLES]
    table = measured(parts, ROLES, QUESTIONS.slice(0, 2))
    assert not [name for name in table.column_names if "diversity" in name or name.endswith(".distance_from_base")]
    assert set_metrics(parts, ROLES, None) == {"seconds_per_image": {"base": 0.5, "candidate": 0.5}}
    assert frechet_yardsticks(parts, ROLES) == {}
    with_features = [part(role, [0, 1]) for role in ROLES]
    assert "base.diversity" not in measured(with_features, ROLES, QUESTIONS.slice(0, 2)).column_names


def test_set_metrics() -> None:
    reference = np.random.default_rng(9).normal(size=(5, 3))
    metrics = set_metrics(PARTS, ROLES, reference)
    vectors = {role: VECTORS[role].astype(np.float32).astype(float) for role in ROLES}
    assert metrics["frechet_to_base"] == {
        "candidate": pytest.approx(frechet_distance(vectors["candidate"], vectors["base"]))
    }
    assert metrics["frechet_to_reference"] == {
        role: pytest.approx(frechet_distance(vectors[role], reference)) for role in ROLES
    }
    assert metrics["seconds_per_image"] == {"base": 1.5, "candidate": 1.5}
    yardsticks = frechet_yardsticks(PARTS, ROLES)
    assert yardsticks["frechet_between_halves_of_base"] == pytest.approx(
        frechet_distance(vectors["base"][::2], vectors["base"][1::2])
    )


@pytest.mark.parametrize(("shift", "clear"), [(0.0, False), (0.3, True)])
def test_a_small_change_is_told_from_chance(monkeypatch: pytest.MonkeyPatch, shift: float, clear: bool) -> None:
    """Same prompts and noise: two halves of the base are further apart than a real change, swapped pairs are not."""
    draw = np.random.default_rng(5)
    common = draw.normal(size=(64, 96))
    base, candidate = (common + draw.normal(scale=0.3, size=(64, 96)) for _ in ROLES)
    monkeypatch.setattr("tests.evaluation.test_metrics.PROMPTS", [str(i) for i in range(64)])
    for role, vectors in zip(ROLES, (base, candidate + shift), strict=True):
        monkeypatch.setitem(VECTORS, role, vectors)
    parts = [part(role, list(range(64))) for role in ROLES]
    found, yardsticks = (
        set_metrics(parts, ROLES, None)["frechet_to_base"]["candidate"],
        frechet_yardsticks(parts, ROLES),
    )
    assert yardsticks["frechet_between_halves_of_base"] > found
    assert (found > yardsticks["frechet_to_base_by_chance"]["candidate"]) == clear


def test_a_broken_image_spoils_its_own_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = VECTORS["candidate"].copy()
    broken[1] = math.nan
    monkeypatch.setitem(VECTORS, "candidate", broken)
    parts = [part(role, [0, 1, 2, 3]) for role in ROLES]
    table = measured(parts, ROLES, QUESTIONS)
    assert [math.isfinite(d) for d in table["candidate.distance_from_base"].to_pylist()] == [True, False, True, True]
    assert [math.isfinite(d) for d in table["candidate.diversity"].to_pylist()] == [True, False, True, False]
    assert math.isfinite(set_metrics(parts, ROLES, None)["frechet_to_base"]["candidate"])


def test_a_model_of_other_images_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="the images of candidate are not those that were asked for"):
        measured([part("base", [0, 1]), part("candidate", [0, 2])], ROLES, QUESTIONS.slice(0, 2))
