"""Plans, their draws, and the errors that help."""

import pickle
from collections import Counter
from typing import Any

import pytest
import torch

from sdo_ray.backprop import BackpropPlan, PlanError, StepGradient, available, check_plan, estimator, make_plan

N = 10


def kept(plan: BackpropPlan) -> list[int]:
    return list(plan.steps)


def test_what_is_available() -> None:
    assert {"sdo", "full", "draft"} <= set(available())


def test_draws_follow_the_generator() -> None:
    draw = [kept(make_plan("sdo", N, K=3, generator=torch.Generator().manual_seed(7))) for _ in range(2)]
    assert draw[0] == draw[1]
    assert draw[0] == sorted(set(draw[0]))
    torch.manual_seed(0)
    first = kept(make_plan("sdo", N, K=3))
    torch.manual_seed(0)
    assert kept(make_plan("sdo", N, K=3)) == first


@pytest.mark.parametrize(
    ("options", "population"),
    [
        ({}, range(N)),
        ({"K": 3}, range(N)),
        ({"draw": "early"}, range(5)),
        ({"draw": "late", "K": 2}, range(5, N)),
        ({"draw": "stratified", "K": 3}, range(N)),
    ],
)
def test_draws_are_uniform_over_their_population(options: dict[str, Any], population: range) -> None:
    generator = torch.Generator().manual_seed(0)
    draws, K = 4000, options.get("K", 1)
    counts = Counter(k for _ in range(draws) for k in kept(make_plan("sdo", N, generator=generator, **options)))
    assert set(counts) == set(population)
    for k in population:
        p = K / len(population)
        if options.get("draw") == "stratified":
            p = 1 / 3 if k < 6 else 1 / 4  # strata 0-2, 3-5, 6-9
        assert abs(counts[k] / draws - p) < 5 * (p * (1 - p) / draws) ** 0.5, "five standard deviations"


def test_unbiased_scales_are_inverse_probabilities() -> None:
    assert set(make_plan("sdo", N, K=4, unbiased=True).steps.values()) == {StepGradient(2.5, 0.0)}
    assert set(make_plan("sdo", N, K=4).steps.values()) == {StepGradient(1.0, 0.0)}
    plan = make_plan("sdo", N, K=3, draw="stratified", unbiased=True)
    assert [s.scale for s in plan.steps.values()] == [3.0, 3.0, 4.0]


def test_the_shapes_of_full_and_draft() -> None:
    assert make_plan("full", 3).steps == {i: StepGradient(1.0, 1.0) for i in range(3)}
    assert make_plan("draft", N, K=3).steps == {
        7: StepGradient(1.0, 0.0),
        8: StepGradient(1.0, 1.0),
        9: StepGradient(1.0, 1.0),
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sdoo", {}, "draft, .*full, .*sdo.*import path"),
        ("no.such.module:function", {}, "make the path importable"),
        ("sdo", {"k": 2}, "k: got 2; legal: options of sdo: K, unbiased, draw, at"),
        ("full", {"K": 2}, "options of full: checkpoint"),
        ("sdo", {"K": N + 1}, r"K: got 11; legal: an integer in 1 .. 10"),
        ("sdo", {"K": 0}, "K: got 0"),
        ("sdo", {"K": 1.5}, "K: got 1.5"),
        ("sdo", {"K": True}, "K: got True"),
        ("draft", {"K": N + 1}, "K: got 11"),
        ("sdo", {"K": 6, "draw": "late"}, r"1 .. 5"),
        ("sdo", {"draw": "middle"}, "uniform, early, late, stratified, fixed"),
        ("sdo", {"draw": "fixed"}, "at: got None"),
        ("sdo", {"at": [1]}, r"at: got \[1\]"),
        ("sdo", {"draw": "fixed", "at": [1, 1], "K": 2}, "2 different steps"),
        ("sdo", {"draw": "fixed", "at": [N]}, "0 .. 9"),
        ("sdo", {"draw": "early", "unbiased": True}, "unbiased: got True"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], message: str) -> None:
    for refuse in (lambda: make_plan(name, N, **options), lambda: check_plan(name, N, options)):
        with pytest.raises(PlanError, match=message):
            refuse()


def test_num_steps_is_refused() -> None:
    for name in ("sdo", "full", "draft"):
        with pytest.raises(PlanError, match="num_steps: got 0"):
            check_plan(name, 0, {})
    with pytest.raises(PlanError, match=r"steps: got \[4\]; legal: 0 .. 3"):
        BackpropPlan("own", 4, {4: StepGradient()})


def test_checking_draws_from_no_generator() -> None:
    before = torch.get_rng_state()
    check_plan("sdo", N, {"K": 3})
    assert torch.equal(torch.get_rng_state(), before)


def odd_steps(num_steps: int, *, generator: torch.Generator | None = None, scale: float = 1.0) -> BackpropPlan:
    return BackpropPlan("odd", num_steps, {i: StepGradient(scale, 0.0) for i in range(1, num_steps, 2)})


def test_a_plan_of_ones_own() -> None:
    path = f"{__name__}:odd_steps"
    assert kept(make_plan(path, 5, scale=2.0)) == [1, 3]
    with pytest.raises(PlanError, match=r"options of .*odd_steps: scale"):
        make_plan(path, 5, rate=2.0)
    with pytest.raises(PlanError, match="estimator: got 'sdo'"):
        estimator("sdo")(odd_steps)


def test_plans_and_errors_travel() -> None:
    """Ray sends them between our own processes by pickle."""
    plan = make_plan("sdo", N, K=2)
    assert pickle.loads(pickle.dumps(plan)) == plan
    with pytest.raises(PlanError) as caught:
        make_plan("sdo", N, K=99)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.field, again.got) == (str(caught.value), "K", 99)


def test_describe_names_the_steps() -> None:
    plan = make_plan("draft", N, K=2)
    assert str(plan) == plan.describe()
    assert "2 of 10 steps" in plan.describe()
    assert "8 (scale 1, coupling 0), 9 (scale 1, coupling 1)" in plan.describe()
