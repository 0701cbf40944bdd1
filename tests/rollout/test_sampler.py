"""The sampler as Ray Data calls it, from several threads; its rewards, policies and watch are of this process."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import safetensors.torch
import torch

from rewards.scoring import score_with_gradient
from rewards.terms import Mixing
from sdo_ray.blocks import _OnBlocks, packed
from sdo_ray.models.fingerprint import fingerprint
from sdo_ray.models.parameters import trained_values
from sdo_ray.models.policy import initial_policy
from sdo_ray.models.quantised import NEEDED
from sdo_ray.models.settings import ModelSettings
from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout import sampler as sampler_module
from sdo_ray.rollout.contribution import compute_contribution, learn_from
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings
from sdo_ray.rollout.records import Contribution, PromptBatch
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.reward_settings import MixSettings
from sdo_ray.rollout.sampler import Sampler
from sdo_ray.rollout.sampler_config import SamplerConfig
from sdo_ray.rollout.settings import LearningSamplerSettings, PlanSettings
from sdo_ray.rollout.tensors import dump_tensors, load_tensors, with_average
from sdo_ray.rollout.watch import BatchFailed, Disagreement
from sdo_ray.sealed import Sealed
from sdo_ray.seeds import derive_seed
from sdo_ray.settings import SettingsError
from tests.support.ink import Ink, Redness

UPDATES, BATCHES = 2, 2


@pytest.fixture(autouse=True)
def rewards_have_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {key: SimpleNamespace(differentiable=True) for key in ("ink", "redness")}
    monkeypatch.setattr(sampler_module, "reward_specs", lambda actors: specs)


class Versions:
    """Version v for update v."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._weights = weights

    def newest(self, at_most: int, known: int) -> tuple[int, bytes | None]:
        moved = {name: tensor + 0.05 * (at_most + 1) for name, tensor in self._weights.items()}
        return at_most, None if known == at_most else dump_tensors(moved)


class Quiet:
    """A watch that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.marks: dict[str, str] = {}

    def say(self, line: str) -> None:
        self.said.append(line)

    def stay_in_touch(self) -> None:
        pass

    def agree(self, what: str, who: str, mark: str) -> None:
        if self.marks.setdefault(what, mark) != mark:
            raise Disagreement(f"{what} of {who}")

    @contextmanager
    def starting(self) -> Iterator[None]:
        yield

    @contextmanager
    def batch(self, batch: PromptBatch) -> Iterator[None]:
        yield


class Rewards:
    """What `RewardClient` is, computed here; `before(key)` is called first, when the answer is waited for."""

    def __init__(self, before: Callable[[str], None] = lambda key: None) -> None:
        self.before = before
        self.asked: list[torch.Tensor] = []

    def begin(self, images: torch.Tensor, texts: Any, seeds: Any) -> dict[str, Callable[[], Any]]:
        self.asked.append(images)

        def answer(key: str) -> Any:
            self.before(key)
            return score_with_gradient(Ink() if key == "ink" else Redness(), images, list(texts[key]))

        return {key: partial(answer, key) for key in texts}


def config(base: Path, **ink: Any) -> SamplerConfig:
    terms = [{"name": "redness", "weight": 0.0}, {"name": "ink", "weight": 1.0, **ink}]
    return SamplerConfig(
        seed=3,
        model=ModelSettings.model_validate({"base": str(base), "lora": {"rank": 2, "targets": ["to_q", "to_v"]}}),
        sampling=LearnedSamplingSettings(num_inference_steps=3, guidance_scale=2.0),
        plan=PlanSettings(),
        mix=MixSettings.model_validate({"terms": terms}),
        samplers=LearningSamplerSettings(batch_size=2),
        backward="sampler",
        max_policy_lag=0,
        anchor=0.0,
        preview_prompts=(),
        preview_inputs=(),
        preview_rows=frozenset(),
    )


def sampler(settings: SamplerConfig, rewards: Rewards) -> tuple[Sampler, Quiet]:
    watch: Any = Quiet()
    policies: Any = Versions(initial_policy(settings.model, 0))
    made = Sampler(settings, policies, {}, watch)
    client: Any = rewards
    made._rewards = client
    return made, watch


def blocks() -> list[Any]:
    return list(schedule(list("abc"), seed=3, batch_size=4, sampler_batch_size=2, start=0, stop=UPDATES))


def contributions(made: Sampler, threads: int) -> list[Contribution]:
    with ThreadPoolExecutor(threads) as pool:
        # An update's batches at once, as with policy lag 0.
        found = [list(pool.map(made, blocks()[u * BATCHES : (u + 1) * BATCHES])) for u in range(UPDATES)]
    return [contribution for update in found for table in update for contribution in Contribution.from_arrow(table)]


def test_the_next_batch_is_sampled_while_one_waits_and_nothing_changes_to_the_bit(tiny_base: Path) -> None:
    settings = config(tiny_base)
    meeting = threading.Barrier(BATCHES, timeout=60.0)  # of batches that wait for their reward

    def all_wait(key: str) -> None:
        if key == "ink":
            meeting.wait()

    overlapped = contributions(sampler(settings, Rewards(all_wait))[0], threads=2)
    alone, _ = sampler(settings, Rewards())
    one_by_one = contributions(alone, threads=1)
    assert len(overlapped) == UPDATES * BATCHES
    for a, b in zip(overlapped, one_by_one, strict=True):
        assert (a.policy_version, a.scores, a.mixed, a.step_norms) == (
            b.policy_version,
            b.scores,
            b.mixed,
            b.step_norms,
        )
        assert torch.equal(a.gradient.vector, b.gradient.vector)
        assert a.gradient.vector.abs().max() > 0
        assert list(a.scores) == ["redness", "ink"]
    # And it is what both phases make, one after the other.
    batch = PromptBatch.from_arrow(blocks()[-1])

    def both(images: torch.Tensor, prompts: Any, seeds: Any) -> Any:
        scores, gradient = score_with_gradient(Ink(), images, list(prompts))
        return {"ink": scores}, {"ink": gradient}

    plain = compute_contribution(
        alone._pipeline,
        batch,
        1,
        seed=3,
        sampling=settings.sampling,
        plan=settings.plan,
        rewards=both,
        terms=[settings.mix.terms[1].term],
        mixing=Mixing(),
    )
    assert torch.equal(plain.gradient.vector, one_by_one[-1].gradient.vector)


def test_text_encoders_that_are_away_between_batches(tiny_base: Path) -> None:
    """Batches of one, in which a prompt is encoded by itself anyway, give the same bits; from two threads too."""
    settings = config(tiny_base)
    samplers = {
        where: settings.samplers.model_copy(update={"batch_size": 1, "accumulate": 2, "text_encoders": where})
        for where in ("keep", "offload")
    }
    kept, away = (
        contributions(sampler(replace(settings, samplers=each), Rewards())[0], threads=2) for each in samplers.values()
    )
    for a, b in zip(kept, away, strict=True):
        assert (a.scores, a.step_norms) == (b.scores, b.step_norms)
        assert torch.equal(a.gradient.vector, b.gradient.vector)


def test_batches_that_are_added_up_travel_as_their_sum(tiny_base: Path) -> None:
    settings = config(tiny_base)
    apart = contributions(sampler(settings, Rewards())[0], threads=1)[:BATCHES]
    added = replace(settings, samplers=settings.samplers.model_copy(update={"accumulate": BATCHES}))
    [whole] = schedule(list("abc"), seed=3, batch_size=4, sampler_batch_size=4, start=0, stop=1)
    [together] = Contribution.from_arrow(sampler(added, Rewards())[0](whole))
    assert (together.first_row, together.num_samples) == (0, 4)
    assert together.scores == {key: [*apart[0].scores[key], *apart[1].scores[key]] for key in ("redness", "ink")}
    assert torch.equal(together.gradient.vector, apart[0].gradient.vector + apart[1].gradient.vector)


def test_watched_rewards_are_waited_for_after_the_backward_pass_and_missing_scores_are_none(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def before(key: str) -> None:
        order.append(key)
        if key == "redness":
            raise OSError("no answer")

    def learning(*args: Any, **kwargs: Any) -> Contribution:
        order.append("learning")
        return learn_from(*args, **kwargs)

    monkeypatch.setattr(sampler_module, "learn_from", learning)
    made, watch = sampler(config(tiny_base), Rewards(before))
    [contribution] = Contribution.from_arrow(made(blocks()[0]))
    assert order == ["ink", "learning", "redness"]
    assert contribution.scores["redness"] == [None, None]
    assert contribution.num_samples == 2
    assert watch.said == ["'redness', which is only watched, has no score of a batch: OSError: no answer"]


@pytest.mark.parametrize("when_absent", ["stop", "go_on"])
def test_a_reward_that_stays_away(tiny_base: Path, when_absent: str) -> None:
    settings = config(tiny_base, when_absent=when_absent)
    both = settings.mix.model_copy(
        update={"terms": [settings.mix.terms[0].model_copy(update={"weight": 1.0}), settings.mix.terms[1]]}
    )
    settings = SamplerConfig(**vars(settings) | {"mix": both})

    def before(key: str) -> None:
        if key == "ink":
            raise RewardFailed("ink", "died while it scored; 3 restarts did not help")

    made, watch = sampler(settings, Rewards(before))
    if when_absent == "stop":
        with pytest.raises(BatchFailed, match="update 1, rows 0 to 1: reward 'ink' died while it scored"):
            made(blocks()[0])
        return
    [contribution] = Contribution.from_arrow(made(blocks()[0]))
    assert contribution.scores["ink"] == [None, None]
    assert contribution.mixed == contribution.scores["redness"]
    assert watch.said == ["reward 'ink' died while it scored; 3 restarts did not help; this batch learns without it"]


def test_images_of_a_model_in_16_bits_travel_in_as_many(tiny_base: Path) -> None:
    settings = config(tiny_base)
    half = settings.model.model_copy(update={"dtype": "bfloat16"})
    for model, dtype in ((settings.model, torch.float32), (half, torch.float16)):
        rewards = Rewards()
        sampler(SamplerConfig(**vars(settings) | {"model": model}), rewards)[0](blocks()[0])
        assert [images.dtype for images in rewards.asked] == [dtype]


def test_a_sampler_that_cannot_start_says_why_at_its_first_batch(tiny_base: Path, tmp_path: Path) -> None:
    settings = config(tiny_base)
    missing = settings.model.model_copy(update={"base": str(tmp_path)})
    versions: Any = Versions({})
    watch: Any = Quiet()
    broken = Sampler(SamplerConfig(**vars(settings) | {"model": missing}), versions, {}, watch)
    with pytest.raises(BatchFailed, match=f"a sampler could not start: .*{tmp_path}"):
        broken(blocks()[0])


def test_so_does_any_actor_on_blocks(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        _OnBlocks(Sealed.of(_Failing))(packed(pa.table({"update": [0]})))


class _Failing:
    def __init__(self) -> None:
        raise SettingsError("nowhere")

    def __call__(self, block: pa.Table) -> pa.Table:
        return block


def test_what_an_older_policy_sampled_is_learned_from_with_the_newest_where_the_plan_corrects(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = {key: SimpleNamespace(differentiable=False) for key in ("ink", "redness")}
    monkeypatch.setattr(sampler_module, "reward_specs", lambda actors: specs)
    settings = config(tiny_base)

    def made(loss: str, published: list[int]) -> Contribution:
        plan = PlanSettings(name="group", options={"children": 4, "loss": loss})
        corrected, _ = sampler(replace(settings, plan=plan, max_policy_lag=1), Rewards())
        answers: Any = corrected._rewards.begin
        client: Any = SimpleNamespace(begin=lambda *given: {k: partial(told, a) for k, a in answers(*given).items()})
        corrected._rewards = client
        weights = initial_policy(settings.model, 0)
        policies: Any = SimpleNamespace(newest=partial(newest, weights, iter(published)))
        corrected._policies = policies
        [contribution] = Contribution.from_arrow(corrected(blocks()[BATCHES]))
        return contribution

    def told(answer: Callable[[], Any]) -> Any:
        return answer()[0], None

    def newest(weights: dict[str, torch.Tensor], published: Iterator[int], at_most: int, known: int) -> Any:
        version = next(published)
        moved = {name: tensor + 0.05 * (version + 1) for name, tensor in weights.items()}
        return version, None if known == version else dump_tensors(moved)

    plain, same, newer = made("reinforce", [0]), made("grpo", [0, 0]), made("grpo", [0, 1])
    assert (plain.update, plain.policy_version, newer.policy_version) == (1, 0, 0)
    assert plain.scores == same.scores == newer.scores
    torch.testing.assert_close(same.gradient.vector, plain.gradient.vector, rtol=1e-3, atol=1e-6)
    assert (same.groups["log_ratio"], same.groups["clipped"]) == (0.0, 0.0)
    assert newer.groups["log_ratio"] > 0
    assert not torch.allclose(newer.gradient.vector, plain.gradient.vector, rtol=1e-2)


def test_nft_s_samples_are_the_average_s_and_what_learns_is_the_newest_policy(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = {key: SimpleNamespace(differentiable=True) for key in ("ink", "redness")}
    monkeypatch.setattr(sampler_module, "reward_specs", lambda actors: specs)
    settings = replace(config(tiny_base), plan=PlanSettings(name="nft", options={"samples": 3}))
    first = initial_policy(settings.model, 0)
    average, newest = ({name: w + by for name, w in first.items()} for by in (0.05, 0.1))
    images, made = [], []
    copy = {name: w.clone() for name, w in average.items()}
    for record in (with_average(newest, average), with_average(average, copy)):
        rewards = Rewards()
        nft, _ = sampler(settings, rewards)
        policies: Any = SimpleNamespace(newest=lambda at_most, known, record=record: (at_most, dump_tensors(record)))
        nft._policies = policies
        [contribution] = Contribution.from_arrow(nft(blocks()[0]))
        images.append(rewards.asked[0])
        made.append(contribution)
        held = trained_values(nft._trained)
        assert all(torch.equal(held[name], average[name]) for name in held)
    assert torch.equal(*images)
    assert (made[0].groups["deviation"] > 0, made[1].groups["deviation"]) == (True, 0.0)
    assert not torch.equal(made[0].gradient.vector, made[1].gradient.vector)


@pytest.mark.parametrize(
    "model",
    [
        {"lora": {"rank": 2, "dora": True, "targets": ["to_q", "conv1"]}},
        {"lora": {"rank": 2, "init": "pissa"}},
        {"quantize": {"unet": "int8"}},
        {"quantize": {"unet": "nf4", "text_encoder": "nf4"}},
    ],
    ids=str,
)
def test_processes_with_the_same_policy_give_the_same_bits(tiny_base: Path, model: dict[str, Any]) -> None:
    for to in model.get("quantize", {}).values():
        pytest.importorskip(NEEDED[to][0])
    settings = replace(config(tiny_base), model=ModelSettings.model_validate({"base": str(tiny_base), **model}))
    found, marks = [], []
    for _ in range(2):
        made, watch = sampler(settings, Rewards())
        [contribution] = Contribution.from_arrow(made(blocks()[BATCHES]))
        found.append(contribution)
        marks.append(watch.marks)
    assert marks[0] == marks[1]
    assert found[0].scores == found[1].scores
    assert found[0].gradient.shapes == {name: tuple(w.shape) for name, w in initial_policy(settings.model, 0).items()}
    assert torch.equal(found[0].gradient.vector, found[1].gradient.vector)
    assert found[0].gradient.vector.isfinite().all()
    assert found[0].gradient.vector.any()


def test_an_anchor_is_to_version_0(tiny_base: Path) -> None:
    settings = replace(config(tiny_base), anchor=100.0)
    anchored, _ = sampler(settings, Rewards())
    start = initial_policy(settings.model, derive_seed(settings.seed, "adapter", 0))

    def distance(by: float) -> float:
        weights = {name: tensor + by for name, tensor in start.items()}
        policies: Any = SimpleNamespace(newest=lambda at_most, known: (0, dump_tensors(weights)))
        anchored._policies = policies
        [contribution] = Contribution.from_arrow(anchored(blocks()[0]))
        return contribution.groups["anchor"]

    assert distance(0.0) == pytest.approx(0.0, abs=1e-9)
    assert distance(0.1) > 1e-5


def test_the_first_policy_is_the_published_one_and_base_models_are_one(tiny_base: Path, tmp_path: Path) -> None:
    settings = config(tiny_base)
    made, watch = sampler(settings, Rewards())
    _, published = made._policies.newest(0, known=-1)
    made(blocks()[0])
    assert watch.marks["the weights of policy version 0"] == fingerprint(load_tensors(published))
    made._version = -1
    watch.marks["the weights of policy version 0"] = "another"
    with pytest.raises(BatchFailed, match="the weights of policy version 0 of a sampler"):
        made(blocks()[0])
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    file = other / "unet/diffusion_pytorch_model.safetensors"
    weights = safetensors.torch.load_file(file)
    safetensors.torch.save_file(weights | {"conv_in.bias": weights["conv_in.bias"] + 1e-6}, file)
    policies: Any = Versions(initial_policy(settings.model, 0))
    second = Sampler(
        replace(settings, model=settings.model.model_copy(update={"base": str(other)})), policies, {}, watch
    )
    with pytest.raises(BatchFailed, match="could not start: the base model's weights of a sampler"):
        second(blocks()[0])


def test_what_samples_is_what_was_published(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = sampler(config(tiny_base), Rewards())
    monkeypatch.setattr(sampler_module, "set_parameters", lambda trained, weights: None)
    with pytest.raises(BatchFailed, match=r"a sampler has other weights in .* than were published"):
        made(blocks()[0])
