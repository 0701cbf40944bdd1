"""What evolution of schedules finds on errors that are known in closed form, and that it is the same every time."""

import math
import random

import pytest

from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.step_search.candidate import Candidate, Genes
from sdo_ray.step_search.costs import Costs
from sdo_ray.step_search.evolution import Measured, front, next_generation
from sdo_ray.step_search.pareto import best, crowding, dominates, ranks
from sdo_ray.step_search.predictor import Predictor

N = 16
HOLDS = [CacheSettings(name="taylor"), CacheSettings(name="deepcache")]
GENES = Genes(HOLDS, (0, 1), N)
COSTS = Costs({0: 1.0, 1: 1.0}, {0: 1 / N, 1: 0.4}, N)


def error_of(candidate: Candidate) -> float:
    """Late steps count most, and each way and order has a factor of its own: what has to be found out."""
    total, last, computed = 0.0, 0, set(candidate.steps)
    for step in range(N):
        last = step if step in computed else last
        total += (step - last) ** 2 * math.exp(step / 4)
    return total * (1.0, 0.8)[candidate.hold] * (1.0, 0.5)[candidate.order]


def searched(generations: int, seed: int = 0) -> list[Measured]:
    known: list[Measured] = []
    for number in range(generations):
        made = next_generation(GENES, COSTS, known, number=number, population=12, seed=seed)
        known += [Measured(one, number, COSTS.of(one), error_of(one)) for one in made]
    return known


def volume(known: list[Measured]) -> float:
    """Below (1, e) and beyond the front, in cost and log error: more is better."""
    total, worst = 0.0, math.log(1e4)
    for one in front(known):
        log = math.log(max(one.error, 1e-2))
        total += max(0.0, 1 - one.cost) * max(0.0, worst - log)
        worst = min(worst, log)
    return total


def test_points_are_ranked_and_spread() -> None:
    points = [(0.0, 3.0), (1.0, 1.0), (3.0, 0.0), (2.0, 2.0), (3.0, 3.0), (1.0, 1.0)]
    assert ranks(points) == [0, 0, 0, 1, 2, 0]
    assert not dominates(points[1], points[5])
    assert crowding([(0.0, 4.0), (1.0, 3.0), (4.0, 0.0)]) == [math.inf, 2.0, math.inf]
    assert best(points, 4)[:2] == [0, 2]
    assert {*best(points, 4)} == {0, 1, 2, 5}
    assert best([], 3) == []


def test_the_cost_is_linear_between_what_was_measured() -> None:
    assert COSTS.of(Candidate(0, 0, tuple(range(N)))) == 1
    assert COSTS.of(Candidate(1, 0, (0,))) == 0.4
    assert COSTS.of(Candidate(0, 1, (0, 5, 7, 9))) == pytest.approx(4 / N)


def test_candidates_are_legal_and_say_what_settings_say() -> None:
    draw = random.Random(1)
    some = GENES.first(40, draw)
    assert len({*some}) == 40
    for _ in range(300):
        mother, father = draw.sample(some, 2)
        child = GENES.child(mother, father, draw)
        assert child.steps[0] == 0
        assert list(child.steps) == sorted({*child.steps})
        assert child.steps[-1] < N
        assert GENES.cache(child).computed(N) == frozenset(child.steps)
    cache = GENES.cache(Candidate(1, 1, (0, 4)))
    assert cache == CacheSettings(name="deepcache", order=1, steps=[0, 4], of=N)


def test_few_steps_have_few_ways() -> None:
    genes = Genes(HOLDS[:1], (0,), 2)
    assert {one.steps for one in genes.first(10, random.Random(0))} <= {(0,), (0, 1)}
    known = [Measured(one, 0, 0.5, 0.1) for one in genes.first(10, random.Random(0))]
    costs = Costs({0: 1.0}, {0: 0.5}, 2)
    assert len(next_generation(genes, costs, known, number=1, population=5, seed=0)) <= 1


def test_evolution_is_better_than_as_many_drawn_and_than_where_it_began() -> None:
    found = searched(8)
    drawn = GENES.first(len(found), random.Random(5))
    by_luck = [Measured(one, 0, COSTS.of(one), error_of(one)) for one in drawn]
    began = [one for one in found if one.generation == 0]
    assert volume(found) > 1.05 * volume(by_luck)
    assert volume(found) > 1.15 * volume(began)
    costs = [one.cost for one in front(found)]
    assert costs == sorted(costs)
    assert len({one.candidate for one in found}) == len(found)


def test_the_same_seed_searches_the_same_whatever_order_results_came_in() -> None:
    found, other = searched(3), searched(3, seed=1)
    again = next_generation(GENES, COSTS, found[::-1], number=3, population=12, seed=0)
    assert again == next_generation(GENES, COSTS, found, number=3, population=12, seed=0)
    assert [one.candidate for one in found] != [one.candidate for one in other]


def test_the_predictor_orders_what_it_has_not_seen() -> None:
    draw = random.Random(3)
    some = GENES.first(120, draw)
    predictor = Predictor(GENES, some[:60], [error_of(one) for one in some[:60]])
    rest = [one for one in some[60:] if error_of(one)]
    pairs = [(a, b) for a in rest for b in rest if error_of(a) > 2 * error_of(b)]
    right = sum(predictor(a) > predictor(b) for a, b in pairs)
    assert right / len(pairs) > 0.9
