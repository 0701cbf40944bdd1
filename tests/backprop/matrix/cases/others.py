"""Audio, and pictures without prompts."""

from functools import partial

from ..text import encoder
from .case import family

family("StableAudio DDIM DDPM ConsistencyModel PNDM ScoreSdeVe KarrasVe RePaint")
family("PNDM", num_inference_steps=10)  # Its scheduler cannot make two.

# Audio
family("AceStep", {"text_encoder": partial(encoder, "Qwen3Model")}, audio_duration=4.0)
family("LongCatAudioDiT", audio_duration_s=1.0)
