"""Spectrograms are those of transformers' numpy extractor; resampling keeps tones."""

import math

import numpy as np
import pytest
import torch
from transformers import ClapFeatureExtractor

from rewards.towers.sound import LogMel, fitted, resampled


@pytest.fixture(scope="module")
def extractor():
    return ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc")


@pytest.mark.parametrize("seconds", [1.0, 0.3])
def test_spectrograms_of_the_extractor(seconds, extractor):
    audio = np.random.default_rng(0).normal(0, 0.2, int(seconds * 48_000))
    expected = extractor(audio, sampling_rate=48_000, return_tensors="pt")["input_features"][:, 0]
    found = LogMel(extractor, "cpu")(torch.from_numpy(audio).float()[None])
    torch.testing.assert_close(found, expected.float(), rtol=1e-3, atol=0.02)


def test_lengths():
    audio = torch.arange(7.0)[None]
    assert fitted(audio, 3).tolist() == [[2, 3, 4]]
    assert fitted(audio, 7) is not None
    assert fitted(audio[:, :3], 8).tolist() == [[0, 1, 2, 0, 1, 2, 0, 0]]


@pytest.mark.parametrize(("rate", "wanted"), [(16_000, 48_000), (48_000, 16_000), (44_100, 48_000)])
def test_a_tone_stays_itself(rate, wanted):
    tone = lambda at: torch.sin(2 * math.pi * 440 * torch.arange(at // 10) / at)[None]  # noqa: E731
    torch.testing.assert_close(resampled(tone(rate), rate, wanted), tone(wanted), rtol=0, atol=1e-3)
