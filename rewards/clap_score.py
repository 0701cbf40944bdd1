"""CLAP: does the sound fit its prompt. Wu et al., 2211.06687."""

from torch import Tensor
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from rewards.towers.checkpoint import FromHub, describe_folder, find_folder, load_pretrained
from rewards.towers.prompts import PromptEmbeddings
from rewards.towers.sound import LogMel, resampled


class ClapScore(FromHub):
    """Cosine of sound and prompt in CLAP, in [-1, 1].

    What is below -100 dB throughout is silence to it, and has no gradient.

    Args:
        source: CLAP model without fusion, hub id or local folder.
        sample_rate: of the audio that it is given, in Hz; None: a run gives that of its model, and elsewhere it is
            CLAP's own.
        revision: of the hub.
        device: where to compute; always in float32.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is no CLAP model, or one with fusion, which listens to random parts of longer sounds.
    """

    differentiable = True
    modality = "audio"
    licence = "Apache-2.0"

    def __init__(
        self,
        *,
        source: str = "laion/larger_clap_general",
        sample_rate: int | None = None,
        revision: str | None = None,
        device: str = "cpu",
    ) -> None:
        self.device = device
        folder = find_folder(source, revision)
        self._model = load_pretrained(ClapModel, folder, "float32", device)
        if self._model.config.audio_config.enable_fusion:
            raise ValueError(f"{source} is a CLAP with fusion, whose scores are random; take one without")
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._mel = LogMel(ClapFeatureExtractor.from_pretrained(folder), device)
        self._rate = sample_rate or self._mel.rate
        self._prompts = PromptEmbeddings(self._prompt)
        self.checkpoints = (describe_folder(source, folder),)

    def __call__(self, audio: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of audio, [B, C, T] in [-1, 1], for B prompts."""
        mono = audio.mean(1)
        mono = resampled(mono if mono.element_size() > 2 else mono.float(), self._rate, self._mel.rate)
        found = self._model.get_audio_features(self._mel(mono)[:, None]).pooler_output
        return (found * self._prompts(prompts)).sum(-1)

    def _prompt(self, prompt: str) -> Tensor:
        words = self._tokenizer([prompt], truncation=True, return_tensors="pt").to(self.device)
        found = self._model.get_text_features(words.input_ids, attention_mask=words.attention_mask)
        return found.pooler_output[0]
