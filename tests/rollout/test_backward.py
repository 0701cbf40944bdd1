"""The backward pass of kept steps on the sampler and on the trainer: the same gradient, through what really travels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import TraceError
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.contribution import SampledBatch, compute_contribution, learn_from, sample_batch
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.settings import PlanSettings, SamplingSettings
from sdo_ray.training.modules import Denoisers
from tests.support.policies import moved_policy
from tests.support.samples import saved


def ink(images: torch.Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[dict, dict]:
    weight = torch.linspace(-1, 1, images[0].numel()).view(images[0].shape)
    return {"ink": (images * weight).flatten(1).sum(1)}, {"ink": weight.expand_as(images)}


def contribution(
    model: ModelSettings,
    backward: str,
    plan: str,
    options: dict,
    guidance: float = 2.0,
    kept_graph: str = "retain",
    **call: int,
) -> Contribution:
    pipeline = load_pipeline(model.base, model.dtype)
    set_parameters(attach_working_copy(pipeline.components, model), moved_policy(model))
    made = compute_contribution(
        pipeline,
        PromptBatch(0, (0, 1, 2), ("a", "b", "c")),
        0,
        seed=5,
        sampling=SamplingSettings(num_inference_steps=4, guidance_scale=guidance, options=call),
        plan=PlanSettings(name=plan, options=options),
        rewards=ink,
        terms=[RewardTerm("ink", 1.0)],
        mixing=Mixing(),
        backward=backward,
        kept_graph=kept_graph,
    )
    [arrived] = Contribution.from_arrow(made.to_arrow())
    return arrived


def on_the_trainer(model: ModelSettings, made: Contribution, dtype: str = "float32") -> dict[str, torch.Tensor]:
    module = Denoisers(model, moved_policy(model), dtype)
    module(made.calls).backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named().items()}


def assert_same_gradient(model: ModelSettings, plan: str, options: dict, guidance: float = 2.0) -> None:
    here = contribution(model, "sampler", plan, options, guidance)
    there = contribution(model, "trainer", plan, options, guidance)
    assert there.gradient == {}
    assert here.calls == ()
    assert here.scores == there.scores
    assert here.step_norms == pytest.approx(there.step_norms)
    gradient = on_the_trainer(model, there)
    assert gradient.keys() == here.gradient.keys()
    size = max(tensor.abs().max() for tensor in gradient.values())
    assert size > 1e-3
    for name, tensor in here.gradient.items():
        torch.testing.assert_close(gradient[name], tensor, rtol=1e-4, atol=1e-6 * size, msg=name)


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        ("sdo", {"K": 1}),
        ("sdo", {"K": 3, "unbiased": True}),
        ("draft", {"K": 1}),
        ("refl", {}),
        ("drtune", {"K": 2}),
        ("flowbp-sparse", {"K": 2}),
    ],
)
def test_same_gradient_for_every_plan_of_single_calls(tiny_base: Path, plan: str, options: dict) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base)), plan, options)


@pytest.mark.parametrize("train", ["lora", "diffit", "full"])
def test_same_gradient_for_everything_trained(tiny_base: Path, train: str) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base), train=train), "sdo", {"K": 1})


def test_same_gradient_without_guidance_and_in_half_precision(tiny_base: Path) -> None:
    assert_same_gradient(ModelSettings(base=str(tiny_base), dtype="bfloat16"), "sdo", {"K": 1}, guidance=0.0)


def flat(gradient: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([g.flatten().float() for _, g in sorted(gradient.items())])


@pytest.mark.parametrize("train", ["lora", "diffit", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_gradient_of_either_type_where_samplers_are_of_half_precision(
    tiny_base: Path, train: str, dtype: str
) -> None:
    model = ModelSettings(base=str(tiny_base), dtype="bfloat16", train=train)
    here, there = (contribution(model, backward, "sdo", {"K": 1}) for backward in ("sampler", "trainer"))
    gradient = on_the_trainer(model, there, dtype)
    assert {g.dtype for g in gradient.values()} == {getattr(torch, dtype)}
    assert (flat(gradient) - flat(here.gradient)).norm() < 0.1 * flat(here.gradient).norm()


def test_layers_that_samplers_keep_in_float32_are_rounded_on_trainers_for_little(tmp_path: Path) -> None:
    """Wan's tables, embedding of time and norms: its gradient is as near to float32's as the samplers'."""
    base = str(saved("Wan", tmp_path))
    whole, half = (ModelSettings(base=base, dtype=dtype, train="full") for dtype in ("float32", "bfloat16"))
    call = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 16}
    exact, kept = (flat(contribution(model, "sampler", "sdo", {"K": 1}, **call).gradient) for model in (whole, half))
    gradient = on_the_trainer(half, contribution(half, "trainer", "sdo", {"K": 1}, **call), "bfloat16")
    assert {g.dtype for g in gradient.values()} == {torch.bfloat16}
    cosines = [torch.cosine_similarity(exact, near, dim=0).item() for near in (kept, flat(gradient))]
    print("cosine with float32's gradient, kept in float32 and rounded: {:.4f} {:.4f}".format(*cosines))
    assert cosines[1] > max(0.99, cosines[0] - 0.002)


def test_checkpointed_blocks_on_the_trainer_change_nothing_to_the_bit(tiny_base: Path) -> None:
    plain, blocks = (ModelSettings(base=str(tiny_base), checkpoint_blocks=on) for on in (False, True))
    made = contribution(plain, "trainer", "sdo", {})
    assert any(
        denoiser.is_gradient_checkpointing for denoiser in Denoisers(blocks, moved_policy(blocks)).denoisers.values()
    )
    expected, got = (on_the_trainer(model, made) for model in (plain, blocks))
    assert all(torch.equal(got[name], gradient) for name, gradient in expected.items())


def test_what_travels_does_not_grow_with_the_model(tiny_base: Path) -> None:
    small, large = (
        contribution(ModelSettings(base=str(tiny_base), train=train), "trainer", "sdo", {"K": 1}).to_arrow().nbytes
        for train in ("lora", "full")
    )
    assert large == pytest.approx(small, rel=0.01)
    whole = contribution(ModelSettings(base=str(tiny_base), train="full"), "sampler", "sdo", {"K": 1}).to_arrow().nbytes
    assert whole > 10 * large


@pytest.mark.parametrize(("plan", "options"), [("full", {}), ("draft", {"K": 2}), ("draft-lv", {})])
def test_plans_of_coupled_steps_are_refused(tiny_base: Path, plan: str, options: dict) -> None:
    with pytest.raises(TraceError, match="elsewhere"):
        contribution(ModelSettings(base=str(tiny_base)), "trainer", plan, options)


@pytest.mark.parametrize(
    ("plan", "backward", "dtype"),
    [
        ("sdo", "sampler", "float32"),
        ("leapalign", "sampler", "float32"),
        ("sdo", "trainer", "float32"),
        ("sdo", "sampler", "bfloat16"),
    ],
)
def test_the_same_contribution_in_two_phases(tiny_base: Path, plan: str, backward: str, dtype: str) -> None:
    model = ModelSettings(base=str(tiny_base), dtype=dtype)
    retained, again = (
        contribution(model, backward, plan, {}, kept_graph=kept_graph) for kept_graph in ("retain", "recompute")
    )
    assert again.scores == retained.scores
    assert again.step_norms == pytest.approx(retained.step_norms, rel=1e-4 if dtype == "float32" else 0.05)
    ours, theirs = (
        torch.cat(
            [g.flatten() for g in (made.gradient if backward == "sampler" else on_the_trainer(model, made)).values()]
        )
        for made in (again, retained)
    )
    assert theirs.norm() > 1e-3
    assert (ours - theirs).norm() <= (1e-4 if dtype == "float32" else 0.05) * theirs.norm()


def test_batches_can_wait_side_by_side(tiny_base: Path) -> None:
    """Both are sampled before either is learned from: what overlap is built on."""
    model = ModelSettings(base=str(tiny_base))
    pipeline = load_pipeline(model.base, model.dtype)
    set_parameters(attach_working_copy(pipeline.components, model), moved_policy(model))
    how = {
        "seed": 5,
        "sampling": SamplingSettings(num_inference_steps=4, guidance_scale=2.0),
        "plan": PlanSettings(name="sdo"),
        "kept_graph": "recompute",
    }
    batches = [PromptBatch(0, (row,), ("ab"[row],)) for row in (0, 1)]

    def learned(waiting: SampledBatch) -> Contribution:
        scores, gradients = ink(waiting.trajectory.seen, waiting.batch.prompts, [])
        return learn_from(pipeline, waiting, scores, gradients, terms=[RewardTerm("ink", 1.0)], mixing=Mixing())

    in_turn = [learned(sample_batch(pipeline, batch, 0, **how)) for batch in batches]
    waiting = [sample_batch(pipeline, batch, 0, **how) for batch in batches]
    for ours, theirs in zip(map(learned, waiting), in_turn, strict=True):
        assert all(torch.equal(ours.gradient[name], theirs.gradient[name]) for name in theirs.gradient)


@pytest.mark.parametrize("backward", ["sampler", "trainer"])
def test_a_batch_with_an_infinite_latent_ships_nothing(tiny_base: Path, backward: str) -> None:
    def overflow(unet: torch.nn.Module, args: object, output: tuple[torch.Tensor]) -> None:
        output[0][1, 0, 0, 0] = torch.inf

    model = ModelSettings(base=str(tiny_base))
    pipeline = load_pipeline(model.base, model.dtype)
    attach_working_copy(pipeline.components, model)
    pipeline.unet.register_forward_hook(overflow)
    made = compute_contribution(
        pipeline,
        PromptBatch(0, (0, 1), ("a", "b")),
        0,
        seed=5,
        sampling=SamplingSettings(num_inference_steps=4, guidance_scale=0.0),
        plan=PlanSettings(name="sdo", options={"K": 1}),
        rewards=ink,
        terms=[RewardTerm("ink", 1.0)],
        mixing=Mixing(),
        backward=backward,
    )
    [arrived] = Contribution.from_arrow(made.to_arrow())
    assert (arrived.num_samples, arrived.num_skipped) == (0, 2)
    assert arrived.gradient == {}
    assert arrived.calls == ()
