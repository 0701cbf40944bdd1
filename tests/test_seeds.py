"""Seeds that mean the same on every machine, and after every restart."""

import torch

from sdo_ray.seeds import derive_seed, generator


def test_seeds_are_what_they_were() -> None:
    # A change here would change every run's noise: a run resumed with a newer version would not go on as it began.
    assert derive_seed(0, "noise", 0) == 4847351686998599284
    assert derive_seed(7, "plan", 123) == 5223393461481855066


def test_every_argument_counts() -> None:
    seeds = {derive_seed(run, purpose, i) for run in range(5) for purpose in ("noise", "plan") for i in range(200)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "a", 23) != derive_seed(12, "a", 3)


def test_generators_draw_the_same_again() -> None:
    a, b = (torch.randn(4, generator=generator(1, "noise", 2)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.randn(4, generator=generator(1, "noise", 3)))
