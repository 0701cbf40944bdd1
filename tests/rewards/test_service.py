import numpy as np
import pytest
import ray
import torch

from rewards.registry import create, import_path
from rewards.scoring import score_with_gradient
from rewards.service import RewardActor
from rewards.smoothing import score_with_smoothed_gradient
from rewards.terms import Smoothing


@pytest.fixture(scope="module")
def cluster():
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_actor(cluster, learned, pairs):
    images, prompts = pairs[0][:2], pairs[2][:2]
    options = {"num_threads": 1, "device": "cpu"}
    actor = ray.remote(RewardActor).options(num_cpus=1).remote(import_path("preference"), {}, **options)
    assert ray.get(actor.spec.remote()).differentiable

    scores, gradient, seconds = ray.get(actor.score.remote(images.half().numpy(), prompts, True))
    expected = score_with_gradient(learned["preference"], images.half(), prompts)
    np.testing.assert_allclose(scores, expected[0].numpy(), rtol=1e-4)
    assert torch.nn.functional.cosine_similarity(torch.tensor(gradient).flatten(), expected[1].flatten(), 0) > 0.999
    assert gradient.dtype == scores.dtype == np.float32
    assert seconds > 0

    scores, gradient, _ = ray.get(actor.score.remote(images.numpy(), prompts, False))
    assert gradient is None
    assert scores.shape == (2,)

    found = ray.get(actor.provenance.remote())
    assert (found["name"], found["weights_hash"]) == (import_path("preference"), learned["preference"].weights_hash)
    with pytest.raises(ray.exceptions.RayTaskError, match="2 samples and 1 prompts"):
        ray.get(actor.score.remote(images.numpy(), ["one"], True))


def test_actor_without_ray():
    """The class itself: a black-box reward gives no gradient, and its options reach it."""
    actor = RewardActor("jpeg_compressibility", {"quality": 50}, num_threads=1, device="cpu")
    scores, gradient, _ = actor.score(np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32), ["", ""], True)
    assert gradient is None
    assert (scores < 0).all()
    assert actor.provenance()["options"] == {"quality": 50}


def test_provenance_of_a_reward_without_weights():
    name = "tests.rewards.test_registry:Brightness"
    dim, bright = (RewardActor(name, {"gain": gain}, num_threads=1, device="cpu").provenance() for gain in (1.0, 2.0))
    assert dim["weights_hash"] != bright["weights_hash"]


def test_a_smoothed_actor():
    """Its gradient is smoothed, by the seeds that it is given; its scores are not."""
    name, images = "preference", np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    smoothing = Smoothing(shifts=2, copies=2)
    plain, smooth = (RewardActor(name, {}, num_threads=1, device="cpu", smoothing=s) for s in (None, smoothing))
    expected = score_with_smoothed_gradient(create(name), torch.tensor(images), ["", ""], smoothing, [4, 5])
    scores, gradient, _ = smooth.score(images, ["", ""], True, [4, 5])
    for got, wanted in zip((scores, gradient), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(scores, plain.score(images, ["", ""], True, [4, 5])[0])
    np.testing.assert_array_equal(
        plain.score(images, ["", ""], True)[1], plain.score(images, ["", ""], True, [4, 5])[1]
    )
    assert smooth.score(images, ["", ""], False)[1] is None
