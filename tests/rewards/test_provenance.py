"""What exactly gave the scores."""

import numpy as np
import pytest
import torch
import transformers

from rewards.provenance import as_tags, is_noncommercial
from rewards.service import RewardActor

from .tiny.cases import CASES


def actor(name, **options):
    return RewardActor(name, options, num_threads=1, device="cpu")


def test_of_a_reward_with_weights(tmp_path):
    options = CASES["aesthetic_v1"].options(tmp_path)
    found = actor("aesthetic_v1", **options).provenance()
    assert found["licence"] == "MIT"
    assert [part["source"] for part in found["sources"]] == [str(tmp_path / "head.pth"), str(tmp_path)]
    assert found["versions"]["transformers"] == transformers.__version__
    tags = as_tags("own", found)
    assert tags["reward.own"].startswith(found["weights_hash"])
    assert tags["reward.own.licence"] == "MIT"
    assert tags["reward.own.sources"] == "; ".join(f"{part['source']} {part['sha256']}" for part in found["sources"])
    torch.save({"weight": torch.ones(1, 8), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    assert actor("aesthetic_v1", **options).provenance()["weights_hash"] != found["weights_hash"]


def test_the_hubs_commit_is_said():
    found = {"weights_hash": "aa", "options": {}, "licence": None, "versions": {}}
    tags = as_tags("r", found | {"sources": [{"source": "a/b", "revision": "0123", "sha256": "cc"}]})
    assert tags == {"reward.r": "aa {}", "reward.r.licence": "not said", "reward.r.sources": "a/b@0123 cc"}


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "MIT AND CC-BY-NC-SA-4.0", "PolyForm-Noncommercial-1.0.0"])
def test_licences_that_forbid_commercial_use(licence):
    assert is_noncommercial(licence)


@pytest.mark.parametrize("licence", [None, "MIT", "Apache-2.0", "AGPL-3.0-only", "NCSA", "CC-BY-4.0"])
def test_licences_that_allow_it(licence):
    assert not is_noncommercial(licence)


def test_batches_of_several_samplers_stay_apart_in_a_reward_of_whole_batches(tmp_path):
    """What another sampler sends at the same moment must not change a batch's scores."""
    diversity = actor("diversity", **CASES["diversity"].options(tmp_path))
    generator = np.random.default_rng(0)
    batches = [generator.random((size, 3, 16, 16), dtype=np.float32) for size in (3, 2)]
    together = diversity.score_together([["a"] * 3, ["b"] * 2], True, [[], []], *batches)
    for batch, (scores, gradient) in zip(batches, together[:-1], strict=True):
        alone = diversity.score(batch, [""] * len(batch), True)
        np.testing.assert_array_equal(scores, alone[0])
        np.testing.assert_array_equal(gradient, alone[1])
