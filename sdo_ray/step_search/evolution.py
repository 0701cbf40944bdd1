"""Generations of candidates, each made of the best of all before it and chosen by a predictor before it is measured."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sdo_ray.seeds import derive_seed
from sdo_ray.step_search.candidate import Candidate, Genes
from sdo_ray.step_search.costs import Costs
from sdo_ray.step_search.pareto import best
from sdo_ray.step_search.predictor import Predictor

CHILDREN = 4
"""Children that a predictor chooses one of."""


@dataclass(frozen=True)
class Measured:
    """What a candidate came to."""

    candidate: Candidate
    generation: int
    """From 0; 0 are those that evolution starts from."""
    cost: float
    """Share of the time of exact steps, by `Costs`."""
    error: float
    """From exact steps, 0 or more."""

    @property
    def point(self) -> tuple[float, float]:
        """What is to be small."""
        return self.cost, self.error


def next_generation(
    genes: Genes, costs: Costs, known: Sequence[Measured], *, number: int, population: int, seed: int
) -> list[Candidate]:
    """The candidates to measure next, none of which is known; the same for the same arguments.

    Args:
        genes: what may be chosen.
        costs: of candidates.
        known: all that earlier generations came to, in any order.
        number: of the generation.
        population: how many; fewer only where there are no more.
        seed: the run's.
    """
    draw = random.Random(derive_seed(seed, "generation", number))
    if not number:
        return genes.first(population, draw)
    known = sorted(known, key=lambda one: one.candidate)
    taken, children = {one.candidate for one in known}, list[Candidate]()
    parents = [known[place].candidate for place in best([one.point for one in known], population)]
    for _ in range(50 * CHILDREN * population):
        if len(children) == CHILDREN * population:
            break
        # The best come first, so of two drawn places the smaller wins the tournament.
        mother, father = (parents[min(draw.randrange(len(parents)) for _ in range(2))] for _ in range(2))
        if (child := genes.child(mother, father, draw)) not in taken:
            taken.add(child)
            children.append(child)
    predictor = Predictor(genes, [one.candidate for one in known], [one.error for one in known])
    points = [(costs.of(child), predictor(child)) for child in children]
    return [children[place] for place in best(points, population)]


def front(known: Sequence[Measured]) -> list[Measured]:
    """Those that no other is both cheaper and nearer than, the cheapest first; of equal ones the first."""
    found: list[Measured] = []
    for one in sorted(known, key=lambda one: (one.cost, one.error, one.candidate)):
        if not found or one.error < found[-1].error:
            found.append(one)
    return found
