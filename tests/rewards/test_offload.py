"""Weights that leave their device between batches: all of them, no score changed, and what they rest in is kept."""

import functools
import gc
import weakref
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch

from rewards import create
from rewards.offload import Offload, tensors_of
from rewards.scoring import score, score_with_gradient
from rewards.service import RewardActor
from rewards.shared_service import Member, SharedActor

from .tiny.cases import CASES
from .tiny.pins import images_of

FAMILIES = ("clip_score", "image_reward", "hpsv3", "clap_score", "mmd", "alignment")


def addresses(tensors: list[torch.Tensor]) -> list[int]:
    return [x.untyped_storage().data_ptr() for x in tensors]


@pytest.mark.parametrize("name", FAMILIES)
def test_all_tensors_leave_and_the_scores_stay(name, tmp_path):
    gc.freeze()  # what is there now is not among the objects below
    try:
        reward = create(CASES[name].path or name, **CASES[name].options(tmp_path))
        weights = [x for x in gc.get_objects() if isinstance(x, torch.nn.Parameter)]
    finally:
        gc.unfreeze()
    images, prompts = images_of(name), list(CASES[name].prompts)
    expected = score_with_gradient(reward, images, prompts)
    assert {id(x) for x in weights} <= {id(x) for x in tensors_of([reward])}
    there = [weakref.ref(x.untyped_storage()) for x in weights]
    offload = Offload([reward], "cpu")
    assert not any(storage() for storage in there)
    resting = addresses(weights)
    for _ in range(2):
        with offload.on_device():
            found = score_with_gradient(reward, images, prompts)
            assert not set(addresses(weights)) & set(resting)
        assert addresses(weights) == resting
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


class Counting:
    """Two views of one storage, a tensor that every call writes to, and one that it makes anew."""

    differentiable = False

    def __init__(self) -> None:
        self.whole = torch.arange(6.0)
        self.parts = {"end": self.whole[4:]}
        self.calls = torch.zeros(())
        self.last = torch.zeros(2)

    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        self.calls += 1
        self.last = images.mean((1, 2, 3)) + self.calls
        return self.last * self.parts["end"].sum()


def test_what_is_written_to_on_the_device_is_kept() -> None:
    reward, same = Counting(), Counting()
    offload, images = Offload([reward], "cpu"), torch.rand(2, 3, 4, 4)
    assert len(set(addresses([reward.whole, reward.parts["end"]]))) == 1
    for _ in range(3):
        with offload.on_device():
            found = score(reward, images, ["", ""])
            assert len(set(addresses([reward.whole, reward.parts["end"]]))) == 1
        assert torch.equal(found, score(same, images, ["", ""]))
        assert torch.equal(reward.last, same.last)
    assert reward.calls == 3


def test_what_is_put_in_a_tensor_s_place_on_the_device_is_kept() -> None:
    """Of another type, as `module.half()` does; of another storage; another part of the same one."""
    net, other, part = torch.nn.Linear(3, 2), torch.zeros(4), torch.arange(6.0)
    weight = net.weight.detach().clone()
    offload = Offload([[net, other, part]], "cpu")
    with offload.on_device():
        net.half()
        other.data = torch.ones(4)
        part.data = part.data[2:4]
    for _ in range(2):
        assert net.weight.dtype == torch.float16
        assert torch.equal(net.weight, weight.half())
        assert other.tolist() == [1, 1, 1, 1]
        assert part.tolist() == [2, 3]
        with offload.on_device():
            assert torch.equal(net.weight, weight.half())


def test_tensors_of_inference_mode_are_there_and_leave() -> None:
    with torch.inference_mode():
        x = torch.arange(3.0)
    offload = Offload([{"x": x}], "cpu")
    for i in range(2):
        resting = addresses([x])
        with offload.on_device(), torch.inference_mode():
            assert addresses([x]) != resting
            x += 1
        assert x.tolist() == [i + 1, i + 2, i + 3]


class Slots:
    __slots__ = ("__own", "empty")

    def __init__(self, x: torch.Tensor) -> None:
        self.__own = x

    def call(self) -> None:
        """A method that may be bound."""


class MoreSlots(Slots):
    """With attributes too."""


def closure(x: torch.Tensor) -> Any:
    return lambda: x


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: deque([x]),
        lambda x: functools.partial(max, x),
        lambda x: functools.partial(functools.partial(dict, key=x)),
        lambda x: frozenset([x]),
        Slots,
        MoreSlots,
        lambda x: Slots(x).call,
    ],
)
def test_tensors_are_found(hold: Any) -> None:
    x = torch.zeros(1)
    assert [id(found) for found in tensors_of([{"held": hold(x)}])] == [id(x)]
    assert not list(tensors_of([closure(x)]))  # as docs/rewards.md says


def test_tensors_for_which_there_was_no_room_stay_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Counting()
    offload, room, left = Offload([reward], "cpu"), Offload._room, [2, 0]
    resting = addresses([reward.whole, reward.calls, reward.last])

    def little(self: Offload, storage: torch.UntypedStorage, device: torch.device) -> torch.Tensor:
        if not left[0]:
            raise torch.OutOfMemoryError
        left[0] -= 1
        return room(self, storage, device)

    monkeypatch.setattr(Offload, "_room", little)
    with pytest.raises(torch.OutOfMemoryError), offload.on_device():
        pass
    assert addresses([reward.whole, reward.calls, reward.last]) == resting
    left[0] = 9
    with offload.on_device():
        assert not set(addresses([reward.whole, reward.calls, reward.last])) & set(resting)


def test_actors_offload_what_they_score_with(tmp_path_factory) -> None:
    options = {name: CASES[name].options(tmp_path_factory.mktemp(name)) for name in ("clip_score", "mmd")}
    options["mmd"] = {**options["mmd"], "source": options["clip_score"]["source"]}
    images, prompts = images_of("clip_score").numpy(), list(CASES["clip_score"].prompts)
    plain, offloaded = (RewardActor("clip_score", options["clip_score"], 1, "cpu", offload=o) for o in (False, True))
    expected, found = plain.score(images, prompts, True), offloaded.score(images, prompts, True)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    members = {name: Member(name, given) for name, given in options.items()}
    shared = SharedActor(members, 1, "cpu", offload=True)
    resting = addresses(list(tensors_of(shared._rewards.values())))
    asked = dict.fromkeys(members, prompts)
    [answer, _] = shared.score_together([asked], dict.fromkeys(members, True), [[]], images)
    np.testing.assert_allclose(answer["clip_score"][1], expected[1], rtol=1e-4, atol=1e-7)
    assert set(resting) <= set(addresses(list(tensors_of(shared._rewards.values()))))


@pytest.mark.gpu
def test_a_gpu_is_free_between_batches(tmp_path) -> None:
    given, images = CASES["clip_score"].options(tmp_path), images_of("clip_score").numpy()
    prompts = list(CASES["clip_score"].prompts)
    plain = RewardActor("clip_score", given, 1, "cuda")
    expected = plain.score(images, prompts, True)
    del plain
    gc.collect()
    before = torch.cuda.memory_allocated()  # what cuBLAS works in among it, which it keeps
    offloaded = RewardActor("clip_score", given, 1, "cuda", offload=True)
    for _ in range(2):
        assert torch.cuda.memory_allocated() == before
        found = offloaded.score(images, prompts, True)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-7)
    assert all(x.is_pinned() for x in tensors_of([offloaded._reward]) if x.numel())
