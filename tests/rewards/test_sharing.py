"""Rewards on one network in one actor: what each has alone, for one forward pass."""

from typing import Any

import numpy as np
import pytest
import torch

from rewards.registry import RewardError
from rewards.service import RewardActor
from rewards.shared_service import Member, SharedActor
from rewards.towers.sharing import same_images, seen

from .tiny.cases import CASES
from .tiny.pins import images_of

WANT = {"clip_score": True, "aesthetic_v1": True, "aesthetic_v2": False, "image_similarity": True, "mmd": True}
TEXTS = {key: ["a cat", "two dogs"] if key != "clip_score" else ["a boat", "ships"] for key in WANT}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """All on one tiny CLIP."""
    found = {key: CASES[key].options(tmp_path_factory.mktemp(key)) for key in WANT}
    return {key: {**value, "source": found["clip_score"]["source"]} for key, value in found.items()}


@pytest.fixture(scope="module")
def shared(options):
    return SharedActor({key: Member(key, value) for key, value in options.items()}, 1, "cpu")


def vision_passes(actor):
    """How often the network looks at images, counted from now on."""
    passes = []
    network = actor._rewards["clip_score"]._clip.model.vision_model
    network.register_forward_hook(lambda *_: passes.append(1))
    return passes


def test_each_has_the_scores_and_gradients_that_it_has_alone_for_one_forward_pass(options, shared):
    images = images_of("clip_score").numpy()
    passes = vision_passes(shared)
    [found, _] = shared.score_together([TEXTS], WANT, [[]], images)
    assert len(passes) == 1
    for key, want in WANT.items():
        scores, gradient, _ = RewardActor(key, options[key], 1, "cpu").score(images, TEXTS[key], want)
        np.testing.assert_allclose(found[key][0], scores, rtol=1e-5, atol=1e-7)
        assert (found[key][1] is None) == (not want)
        if want:
            np.testing.assert_allclose(found[key][1], gradient, rtol=1e-4, atol=1e-7)


def test_the_weights_are_there_once(shared):
    assert len({id(shared._rewards[key]._tower.model) for key in ("aesthetic_v1", "aesthetic_v2", "mmd")}) == 1


def test_another_batch_is_another_pass(shared):
    images, other = images_of("clip_score").numpy(), images_of("clip_score").flip(3).numpy()
    want = {"aesthetic_v1": False}
    first, second = (shared.score_together([TEXTS], want, [[]], x)[0]["aesthetic_v1"][0] for x in (images, other))
    assert not np.allclose(first, second)


def test_several_batches_are_scored_as_one_but_for_rewards_of_whole_batches(shared):
    images = images_of("clip_score").numpy()
    batches = (images, images[::-1].copy(), images[:1])
    texts = [TEXTS, TEXTS, {key: value[:1] for key, value in TEXTS.items()}]
    for want, passes_wanted in ((dict.fromkeys(["clip_score", "aesthetic_v1"], True), 1), (WANT, 3)):
        passes = vision_passes(shared)
        *together, _ = shared.score_together(texts, want, [[]] * 3, *batches)
        assert len(passes) == passes_wanted
        alone = [shared.score_together([asked], want, [[]], x)[0] for asked, x in zip(texts, batches, strict=True)]
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one["clip_score"][0], other["clip_score"][0], rtol=1e-5)
            np.testing.assert_allclose(one["clip_score"][1], other["clip_score"][1], rtol=1e-4, atol=1e-7)


def test_gradients_travel_in_16_bits_where_images_do(shared):
    images = images_of("clip_score").numpy().astype(np.float16)
    [found, _] = shared.score_together([TEXTS], WANT, [[]], images)
    scaled, exponents = found["clip_score"][1]
    assert (scaled.dtype, exponents.dtype) == (np.float16, np.int16)


def test_three_aspects_of_a_video_are_one_look(tmp_path):
    options = {**CASES["video_align"].options(tmp_path)}
    members = {aspect: Member("video_align", options | {"aspect": aspect}) for aspect in ("VQ", "MQ", "overall")}
    shared = SharedActor(members, 1, "cpu")
    passes = []
    video_align: Any = shared._rewards["VQ"]
    video_align._judge._model.vlm.model.visual.register_forward_hook(lambda *_: passes.append(1))
    videos, prompts = images_of("video_align").numpy(), ["cat", "dogs"]
    [found, _] = shared.score_together([dict.fromkeys(members, prompts)], dict.fromkeys(members, True), [[]], videos)
    assert len(passes) == 2  # of two videos
    scores, gradient, _ = RewardActor("video_align", options | {"aspect": "MQ"}, 1, "cpu").score(videos, prompts, True)
    np.testing.assert_allclose(found["MQ"][0], scores, rtol=1e-5)
    np.testing.assert_allclose(found["MQ"][1], gradient, rtol=1e-3, atol=1e-6)


def test_rewards_on_different_networks_or_none_are_refused(options, tmp_path):
    other = CASES["image_similarity"].options(tmp_path)
    members = {"clip_score": Member("clip_score", options["clip_score"])}
    with pytest.raises(RewardError, match=r"clip_score rests on .*, image_similarity rests on .*; give"):
        SharedActor(members | {"image_similarity": Member("image_similarity", other)}, 1, "cpu")
    with pytest.raises(RewardError, match="brightness rests on none that can be shared"):
        SharedActor(members | {"brightness": Member("brightness", {})}, 1, "cpu")


def test_says_of_each_what_it_is(shared):
    assert shared.spec()["mmd"].batchwise
    assert {part["name"] for part in shared.provenance().values()} == set(WANT)


def test_a_tensor_that_was_written_to_is_seen_anew():
    x, network = torch.ones(2), object()
    with same_images():
        first = seen(network, x, lambda: x * 2)
        assert seen(network, x, lambda: x * 3) is first
        assert seen(object(), x, lambda: x * 3).tolist() == [3, 3]
        x += 1
        assert seen(network, x, lambda: x * 2).tolist() == [4, 4]
    assert seen(network, x, lambda: x * 5).tolist() == [10, 10]


def test_images_that_are_gone_are_not_taken_for_those_that_come_after():
    """Whatever memory the next one is given."""
    network = object()

    def look(number):
        image = torch.full((1,), float(number))
        return seen(network, image, lambda: image.clone())

    with same_images():
        assert [float(look(number)) for number in range(100)] == list(range(100))


def test_what_was_computed_without_a_graph_is_not_given_to_who_wants_one():
    weight, image = torch.ones(1, requires_grad=True), torch.ones(1)
    with same_images():
        with torch.no_grad():
            seen(weight, image, lambda: weight * image)
        assert seen(weight, image, lambda: weight * image).requires_grad
