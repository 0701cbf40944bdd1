"""Audio, and pictures without prompts."""

from .case import family

family("StableAudio DDIM DDPM ConsistencyModel PNDM ScoreSdeVe KarrasVe RePaint")
