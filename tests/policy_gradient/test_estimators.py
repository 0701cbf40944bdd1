"""Each estimator's steps, groups and published numbers."""

from typing import Any

import pytest

from sdo_ray.backprop import PlanError
from sdo_ray.backprop.transitions import Branching
from sdo_ray.policy_gradient import available, check_policy_plan, make_policy_plan, policy_option_names
from tests.backprop.tiny import seeded

N = 10


def made(name: str, num_steps: int = N, seed: int = 0, **options: Any) -> Any:
    return make_policy_plan(name, num_steps, generator=seeded(seed), **options)


def test_group_has_one_split_where_it_learns() -> None:
    plans = [made("group", seed=i) for i in range(200)]
    assert {plan.kept[0] for plan in plans} == set(range(N - 1))
    for plan in plans[:10]:
        [k] = plan.kept
        assert (plan.stochastic, plan.branching, plan.samples) == ((k,), Branching({k: 8}), 8)
        assert plan.backprop.steps.keys() == {k}
    assert {made("group", seed=i, first=2, last=4).kept for i in range(50)} == {(2,), (3,), (4,)}
    several = made("group", steps=3, seeds=4, children=6)
    assert several.kept == tuple(range(several.kept[0], several.kept[0] + 3))
    assert (several.samples, several.compared, several.backprop.checkpoint) == (24, 6, True)
    assert made("group", seeds=4, children=6, baseline="prompt").compared == 24


def test_published_numbers() -> None:
    flow = made("flow-grpo")
    assert (flow.kept, flow.seeds, flow.samples, flow.branching.leaves) == (tuple(range(9)), 24, 24, 1)
    assert (flow.kernel, flow.advantage, flow.compared) == ("sde", "global-std", 24)
    fast = made("flow-grpo-fast")
    assert (len(fast.kept), fast.samples, fast.kernel) == (2, 24, "cps")
    dance = made("dance-grpo", 16)
    assert (len(dance.kept), len(dance.stochastic), dance.samples) == (9, 15, 12)
    assert (dance.kernel, dance.advantage, dance.branching) == ("dance", "dance", Branching({0: 12}))
    temp = made("tempflow")
    assert (temp.samples, temp.seeds, temp.compared, temp.weight) == (24, 4, 6, "tempflow")
    mix = made("mix-grpo", 25)
    assert (mix.samples, len(mix.kept), mix.kernel, mix.advantage) == (12, 4, "sde", "mix")
    nft, awm = made("nft"), made("awm", 14)
    assert (nft.samples, len(nft.kept), nft.advantage, nft.output_kl) == (24, 9, "global-std", 1e-4)
    assert (awm.samples, len(awm.kept), min(awm.kept) >= 1, max(awm.kept) <= 12) == (24, 6, True, True)
    assert (awm.output_kl, awm.forward.power, awm.forward.pull, awm.forward.decay) == (1e-3, 0.25, 1.0, 0.3)
    tree = made("branch-grpo", 20)
    assert (tree.samples, len(tree.kept), tree.advantage) == (16, 19, "depth")


def test_mix_grpo_s_window_moves_and_comes_back() -> None:
    starts = [made("mix-grpo", N, update=u, window=4, every=25).kept[0] for u in (0, 24, 25, 149, 150)]
    assert starts == [0, 0, 1, 5, 0]
    assert made("mix-grpo", N, update=25).branching == Branching({1: 12})


def test_branch_grpo_s_pruning_moves_down_to_the_last_split() -> None:
    def left_out(update: int) -> set[int]:
        return set(range(19)) - set(made("branch-grpo", 20, update=update, pruned=4).kept)

    assert left_out(0) == {15, 16, 17, 18}
    assert left_out(30) == {14, 15, 16, 17}
    assert left_out(10_000) == {10, 11, 12, 13}
    assert set(made("branch-grpo", 20, splits=[2, 5]).kept) == set(range(2, 19))


def test_branch_grpo_mixed_with_steps_without_noise() -> None:
    def noisy(update: int) -> tuple[int, ...]:
        plan = made("branch-grpo", 20, update=update, splits=[0, 4], window=3)
        assert plan.kept == plan.stochastic  # only steps with noise can be learned from
        return plan.stochastic

    assert noisy(0) == (0, 1, 2, 4)
    assert noisy(30) == (0, 1, 2, 3, 4)
    assert noisy(30 * 16) == (0, 4, 16, 17, 18)
    assert noisy(30 * 17) == noisy(0)


def test_pairs_learn_from_what_they_share() -> None:
    for seed in range(20):
        plan = made("pair", seed=seed, pairs=3, K=2)
        [split] = plan.stochastic
        assert max(plan.kept) <= split
        assert len(plan.kept) == min(2, split + 1)
        assert (plan.branching, plan.mirrored, plan.differences) == (Branching({split: 6}), True, True)


@pytest.mark.parametrize("name", available())
def test_common_options_are_every_estimator_s(name: str) -> None:
    noisy = {} if name in ("nft", "awm") else {"kernel": "ou", "eta": 0.5}
    weight = {} if name == "pair" or not noisy else {"weight": "bare"}
    plan = made(name, 12, share=0.2, **noisy, **weight)
    assert (plan.eta, plan.weight, plan.share) == (noisy.get("eta"), weight.get("weight", "one"), 0.2)
    assert "kernel" in policy_option_names(name)
    assert len(check_policy_plan(name, 12, {}, draws=3)) == 3
    assert str(max(plan.kept)) in plan.describe()
    assert max(plan.stochastic, default=0) <= 10
    assert set(plan.kept) <= set(plan.stochastic) or plan.differences or plan.forward


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown option": ("group", {"G": 3}, "G: .*options of group: children, seeds"),
    "one child": ("group", {"children": 1}, "children: got 1; legal: an integer of at least 2"),
    "late": ("group", {"last": 9}, "the last has no noise"),
    "empty": ("group", {"first": 5, "last": 4}, "first: got 5"),
    "many steps": ("group", {"steps": 10}, "steps: got 10; legal: an integer in 1 .. 9"),
    "kernel": ("group", {"kernel": "none"}, "kernel: .*one of cps, dance"),
    "advantage": ("group", {"advantage": "best"}, "advantage: .*one of group"),
    "share": ("group", {"share": 1.0}, "share: got 1.0"),
    "odd": ("group", {"best_and_worst": 3}, "an even number in 2 .. 8"),
    "no comparison": ("flow-grpo", {"baseline": "seed"}, "at least 2 samples that are compared"),
    "no depths": ("flow-grpo", {"advantage": "depth"}, "depths are those of trees"),
    "advantages of pairs": ("pair", {"weight": "bare"}, "differences of rewards are what teaches"),
    "loss": ("group", {"loss": "ppo"}, "loss: .*one of reinforce"),
    "clip": ("group", {"loss": "grpo", "clip": 0}, "clip: got 0; legal: a number above 0"),
    "clip of nothing": ("group", {"clip": 1e-4}, "which has no ratio; dppo, grpo, guard have one"),
    "negative kl": ("group", {"kl": -0.1}, "kl: got -0.1; legal: a number of at least 0"),
    "losses of pairs": ("pair", {"loss": "grpo"}, "differences of rewards are no probabilities"),
    "noise of nft": ("nft", {"eta": 0.5}, "which are of noise in the sampling"),
    "losses of awm": ("awm", {"loss": "grpo"}, "which are of noise in the sampling"),
    "decay": ("nft", {"decay": "fast"}, "decay: got 'fast'; legal: slow, late, or a number"),
    "sides": ("nft", {"b": 0}, "b: got 0; legal: a number above 0"),
    "times": ("awm", {"times": 10}, "times: got 10"),
    "fraction": ("dance-grpo", {"fraction": 0.0}, "fraction: got 0.0"),
    "window": ("mix-grpo", {"window": 12}, "window: got 12"),
    "trimmed": ("mix-grpo", {"trimmed": 1.0}, "trimmed: got 1.0; legal: a share from 0 to below 1"),
    "trimmed of others": ("mix-grpo", {"trimmed": 0.1, "advantage": "group"}, "advantage: mix, which is MixGRPO's"),
    "likelihood": ("branch-grpo", {"by_likelihood": True, "advantage": "group", "splits": [0]}, "for trees"),
    "halves": ("branch-grpo", {"better_half": True, "best_and_worst": 4, "splits": [0, 3]}, "better_half: got True"),
    "splits": ("branch-grpo", {"splits": [0, 9]}, r"splits: got \[0, 9\]; legal: steps in 0 .. 8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_are_refused(case: str) -> None:
    name, options, message = WRONG[case]
    with pytest.raises(PlanError, match=message):
        made(name, N, **options)


def test_one_step_has_no_noise() -> None:
    with pytest.raises(PlanError, match="at least 2: the last step has no noise"):
        made("group", 1)
