"""Batches in groups, without Ray: rewards without a gradient teach, beside those with one; nothing is scored 0."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import surrogate
from sdo_ray.models.denoisers import find_denoisers
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters, trained_values
from sdo_ray.models.trained.lora import LoraSettings, attach, initial
from sdo_ray.policy_gradient import available
from sdo_ray.prompts.inputs import OF_WEIGHTS
from sdo_ray.rollout.contribution import compute_contribution, learn_from, sample_batch
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings

LORA = LoraSettings(rank=2, alpha=2.0, targets=["to_q", "to_v"])
SAMPLING = SamplingSettings(num_inference_steps=5, guidance_scale=2.0)
OPTIONS: dict[str, dict[str, Any]] = {
    "group": {"children": 4},
    "flow-grpo": {"samples": 3, "kernel": "ddim"},
    "flow-grpo-fast": {"children": 3},
    "dance-grpo": {"samples": 3, "kernel": "ddim"},
    "mix-grpo": {"samples": 3, "window": 2, "kernel": "ou"},
    "branch-grpo": {"splits": [0, 2], "kernel": "ddim"},
    "tempflow": {"seeds": 2, "children": 2, "kernel": "ou"},
    "pair": {"pairs": 2},
    "nft": {"samples": 3},
    "awm": {"samples": 3, "times": 2},
}
GROUP = PlanSettings(name="group", options=OPTIONS["group"])


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    pipeline = load_pipeline(str(tiny_base))
    denoisers = find_denoisers(pipeline)
    attach(denoisers, LORA)
    weights = initial(str(tiny_base), "float32", LORA, seed=0)
    set_parameters(denoisers, {name: w + 0.1 * torch.ones_like(w) for name, w in weights.items()})
    return pipeline


class Judge:
    """Brightness without a gradient, and redness with one."""

    def __init__(self, missing: Sequence[int] = (), with_gradient: bool = False) -> None:
        self.missing, self.with_gradient = list(missing), with_gradient
        self.prompts: list[str] = []
        self.seeds: list[int] = []
        self.images = torch.empty(0)

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
        self.prompts, self.seeds, self.images = list(prompts), list(seeds), images
        scores = {"light": images.mean(dim=(1, 2, 3))}
        scores["light"][self.missing] = math.nan
        gradients: dict[str, Any] = {"light": None}
        if self.with_gradient:
            red = torch.zeros_like(images)
            red[:, 0] = 1.0
            scores["red"], gradients["red"] = (red * images).sum(dim=(1, 2, 3)), red
        return scores, gradients


BLACK = [RewardTerm("light", 2.0)]
BOTH = [*BLACK, RewardTerm("red", 1.0)]


def contribution(
    pipeline: Any, judge: Judge, plan: PlanSettings = GROUP, rows: Sequence[int] = (0, 1), **changes: Any
) -> Contribution:
    batch = PromptBatch(
        changes.pop("update", 0), tuple(rows), tuple("abcdefgh"[row] for row in rows), tuple(changes.pop("inputs", ()))
    )
    settings: dict[str, Any] = {"terms": BLACK, "differentiable": False, "mixing": Mixing(), "seed": 5}
    own = trained_values(find_denoisers(pipeline))
    settings["others"] = {name: {key: w.clone() for key, w in own.items()} for name in ("average", "base")}
    return compute_contribution(pipeline, batch, 0, sampling=SAMPLING, plan=plan, rewards=judge, **settings | changes)


def largest(made: Contribution) -> float:
    return max(g.abs().max().item() for g in made.gradient.values())


@pytest.mark.parametrize("name", available())
def test_every_estimator_teaches(pipeline: Any, name: str) -> None:
    judge = Judge()
    made = contribution(pipeline, judge, PlanSettings(name=name, options=OPTIONS[name]))
    samples = len(judge.prompts) // 2
    assert judge.prompts == ["a"] * samples + ["b"] * samples
    assert len(set(judge.seeds)) == 2 * samples
    assert (made.num_samples, made.num_skipped, len(made.scores["light"])) == (2 * samples, 0, 2 * samples)
    assert set(made.gradient) == set(trained_parameters(find_denoisers(pipeline)))
    assert largest(made) > 0
    assert made.step_norms
    assert made.groups["flat_share"] == 0
    assert made.groups["spread"] > 0
    [arrived] = Contribution.from_arrow(made.to_arrow())
    assert arrived.groups == made.groups


def test_an_advantage_that_looks_at_the_samples_has_them(pipeline: Any) -> None:
    novel, plain = (
        contribution(pipeline, Judge(), PlanSettings(name=GROUP.name, options=GROUP.options | {"advantage": name}))
        for name in ("novelty", "plain")
    )
    assert novel.scores == plain.scores
    assert any((novel.gradient[name] != g).any() for name, g in plain.gradient.items())


def test_the_same_batch_again_is_the_same_and_another_is_not(pipeline: Any) -> None:
    first, second = Judge(), Judge()
    a, b = contribution(pipeline, first), contribution(pipeline, second)
    assert torch.equal(first.images, second.images)
    assert all(torch.equal(a.gradient[name], b.gradient[name]) for name in a.gradient)
    contribution(pipeline, second, seed=6)
    assert not torch.equal(first.images, second.images)


def test_batches_add_up(pipeline: Any) -> None:
    fixed = PlanSettings(name="group", options={"children": 4, "first": 2, "last": 2})
    whole = contribution(pipeline, Judge(), fixed)
    parts = [contribution(pipeline, Judge(), fixed, rows=(row,)) for row in (0, 1)]
    for name, gradient in whole.gradient.items():
        together = parts[0].gradient[name] + parts[1].gradient[name]
        torch.testing.assert_close(gradient, together, rtol=1e-3, atol=1e-3 * gradient.abs().max().item())


def test_groups_for_which_no_reward_counts_are_not_flat(pipeline: Any) -> None:
    terms = [RewardTerm("light", 2.0, weigh_by="w")]

    def weighed(*weights: float) -> Contribution:
        return contribution(pipeline, Judge(), terms=terms, inputs=[{OF_WEIGHTS + "w": w} for w in weights])

    assert weighed(1.0, 0.0).groups["flat_share"] == 0
    nothing = weighed(0.0, 0.0)
    assert largest(nothing) == 0
    assert "flat_share" not in nothing.groups


def test_a_prompt_weighs_as_its_column_says_where_rewards_are_standardised_one_by_one(pipeline: Any) -> None:
    plan = PlanSettings(name="group", options=GROUP.options | {"advantage": "mix"})
    terms = [RewardTerm("light", 1.0, weigh_by="w")]
    half, double = (
        contribution(pipeline, Judge(), plan, rows=(0,), terms=terms, inputs=[{OF_WEIGHTS + "w": w}])
        for w in (0.5, 2.0)
    )
    for name, gradient in half.gradient.items():
        torch.testing.assert_close(double.gradient[name], 4 * gradient, rtol=1e-3, atol=1e-6)


def test_a_missing_score_is_missing(pipeline: Any) -> None:
    made = contribution(pipeline, Judge(missing=[1, 4, 5, 6]))
    assert (made.num_samples, made.num_skipped, len(made.mixed)) == (4, 4, 4)
    # Of the second prompt one sample is left, which there is nothing to compare with.
    assert (made.groups["missing"], made.groups["flat_share"]) == (4.0, 0.5)
    first = contribution(pipeline, Judge(missing=[1]), rows=(0,), plan=GROUP)
    assert largest(made) == pytest.approx(largest(first), rel=1e-3)
    nothing = contribution(pipeline, Judge(missing=range(8)))
    assert (nothing.num_samples, len(nothing.gradient)) == (0, 0)


def test_a_constant_reward_teaches_nothing(pipeline: Any) -> None:
    made = contribution(pipeline, Judge(), terms=[RewardTerm("light", 1.0, cap=-1.0)])
    assert (largest(made), made.groups["flat_share"]) == (0.0, 1.0)


@pytest.mark.parametrize("changes", [{"backward": "trainer"}, {"kept_graph": "recompute"}])
def test_the_backward_pass_elsewhere_or_later_is_the_same(pipeline: Any, changes: dict[str, Any]) -> None:
    here = contribution(pipeline, Judge(with_gradient=True), terms=BOTH, differentiable=True)
    there = contribution(pipeline, Judge(with_gradient=True), terms=BOTH, differentiable=True, **changes)
    gradient = there.gradient
    if there.calls:
        denoisers = find_denoisers(pipeline)
        for parameter in trained_parameters(denoisers).values():
            parameter.grad = None
        for call in there.calls:
            # prompts with and without guidance, each once for its group of four
            assert len(call.args[0] if call.args else call.kwargs["sample"]) == 4
            surrogate(denoisers[call.denoiser], call.args, call.kwargs, call.gradients).backward()
        gradient = Gradient.of(
            {name: p.grad for name, p in trained_parameters(denoisers).items() if p.grad is not None}
        )
    for name, g in here.gradient.items():
        torch.testing.assert_close(gradient[name], g, rtol=1e-3, atol=1e-4 * largest(here))


def pulls(pipeline: Any, terms: Sequence[RewardTerm], share: float = 0.5) -> Contribution:
    plan = PlanSettings(name="group", options=OPTIONS["group"] | {"share": share})
    return contribution(pipeline, Judge(with_gradient=True), plan, terms=terms, differentiable=True)


def test_rewards_with_and_without_a_gradient_are_balanced_at_the_kept_step(pipeline: Any) -> None:
    black, red = pulls(pipeline, BLACK), pulls(pipeline, [RewardTerm("red", 1.0)])
    for share in (0.5, 0.2):
        both = pulls(pipeline, BOTH, share)
        told = both.groups
        [step] = both.step_norms
        assert told["gradient_norm"] == pytest.approx(red.step_norms[step], rel=1e-4)
        assert told["group_norm"] == pytest.approx(black.step_norms[step], rel=1e-4)
        scale = share * told["gradient_norm"] / told["group_norm"]
        for name, g in both.gradient.items():
            expected = (1 - share) * red.gradient[name] + scale * black.gradient[name]
            torch.testing.assert_close(g, expected, rtol=1e-3, atol=1e-4 * largest(both))
        assert -1 <= told["cosine"] <= 1


def test_units_of_a_black_box_do_not_matter_beside_a_gradient(pipeline: Any) -> None:
    one, many = (pulls(pipeline, [RewardTerm("light", w), BOTH[1]]) for w in (1.0, 1000.0))
    for name, g in one.gradient.items():
        assert (many.gradient[name] - g).abs().max() < 0.01 * largest(one)  # std + 1e-4 is not quite without units


def test_two_phases(pipeline: Any) -> None:
    judge, batch = Judge(), PromptBatch(0, (0, 1), ("a", "b"))
    waiting = sample_batch(pipeline, batch, 0, seed=5, sampling=SAMPLING, plan=GROUP, differentiable=False)
    scores, gradients = judge(waiting.trajectory.seen, waiting.prompts, waiting.reward_seeds(5))
    made = learn_from(pipeline, waiting, scores, gradients, terms=BLACK, mixing=Mixing())
    whole = contribution(pipeline, Judge())
    assert all(torch.equal(made.gradient[name], whole.gradient[name]) for name in whole.gradient)
