"""Pictures without prompts."""

from .case import family

family("DDIM DDPM ConsistencyModel PNDM ScoreSdeVe KarrasVe RePaint")
family("PNDM", num_inference_steps=10)  # Its scheduler cannot make two.
