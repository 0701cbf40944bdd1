"""Audio as CLAP takes it, on tensors and with gradients: a spectrogram of decibels in mel bands."""

from typing import Any

import torch
from torch import Tensor, nn

_QUIETEST = 1e-10
"""Power that counts as silence, -100 dB."""


class LogMel:
    """Waveforms to mel spectrograms.

    Args:
        extractor: transformers' `ClapFeatureExtractor`, which does the same with numpy.
        device: where to compute.
    """

    def __init__(self, extractor: Any, device: str) -> None:
        self.rate, self.samples = extractor.sampling_rate, int(extractor.max_length_s * extractor.sampling_rate)
        self._size, self._hop = extractor.fft_window_size, extractor.hop_length
        self._filters = torch.as_tensor(extractor.mel_filters_slaney, device=device).float()
        self._window = torch.hann_window(self._size, device=device)

    def __call__(self, audio: Tensor) -> Tensor:
        """Decibels, [B, frames, bands], of audio [B, T] at `rate`, cut or repeated to `samples`."""
        spectrum = torch.stft(
            fitted(audio, self.samples), self._size, self._hop, window=self._window, center=True, return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * torch.log10((power.mT @ self._filters).clamp(min=_QUIETEST))


def fitted(audio: Tensor, samples: int) -> Tensor:
    """Audio [B, T] of the length that is wanted: the middle of what is longer; what is shorter, as often as it fits in
    whole, and silence."""
    length = audio.shape[-1]
    if length >= samples:
        start = (length - samples) // 2
        return audio[..., start : start + samples]
    repeated = audio.repeat(1, samples // length)
    return nn.functional.pad(repeated, (0, samples - repeated.shape[-1]))


def resampled(audio: Tensor, rate: int, wanted: int) -> Tensor:
    """Audio [B, T] at another rate: its spectrum cut off, or filled with zeros."""
    if rate == wanted:
        return audio
    length = max(1, round(audio.shape[-1] * wanted / rate))
    spectrum = torch.fft.rfft(audio)
    bins = length // 2 + 1
    spectrum = nn.functional.pad(spectrum[..., :bins], (0, max(0, bins - spectrum.shape[-1])))
    return torch.fft.irfft(spectrum, n=length) * (length / audio.shape[-1])
