"""Why a pipeline class is refused, and why one is not run."""

from typing import NamedTuple


class Refused(NamedTuple):
    """A class that does not pass."""

    why: str
    """For the table."""
    error: str
    """What its error says, a regular expression."""


_FLEX = Refused(
    "its attention, FlexAttention, has no backward pass on the CPU", "FlexAttention does not support backward"
)
_NUMPY = Refused("returns numpy arrays whatever is asked for", "does not return its images as one tensor")
_DETACHED = Refused("detaches the latents that its loop ends with", "without a gradient at its images")

REFUSED: dict[str, Refused] = {
    "AnyFlowFAR": _FLEX,
    "ChromaInpaint": Refused(
        "fails by itself in diffusers 0.42: reads `guidance_embeds`, which its transformer's config lacks",
        "no attribute 'guidance_embeds'",
    ),
    "EasyAnimateControl": Refused(
        "fails by itself in diffusers 0.42: gives `encode_prompt` an argument that it lacks",
        "unexpected keyword argument 'text_encoder_index'",
    ),
    "EasyAnimateInpaint": Refused(
        "fails by itself in diffusers 0.42: reads `cache_mag_vae` of a config without it",
        "no attribute 'cache_mag_vae'",
    ),
    "Kandinsky6SR": _FLEX,
    "KarrasVe": Refused("its scheduler's step takes noised latents as well", "a step with model_output and sample"),
    "DanceDiffusion": _NUMPY,
    "LDM": _NUMPY,
    "PNDM": _NUMPY,
    "RePaint": _NUMPY,
    "ScoreSdeVe": Refused(
        "its scheduler has no `step` (predictor and corrector of its own)", "legal: a pipeline with a scheduler"
    ),
    "StableDiffusionLDM3D": Refused("has no tensor output", "type pt is not supported"),
    "StableDiffusionParadigms": Refused(
        "steps through windows in parallel, without its scheduler's `step`", "num_steps: got 0"
    ),
    "VersatileDiffusionDualGuided": Refused(
        "fails by itself in diffusers 0.42: gives its attention an argument that it lacks",
        "unexpected keyword argument 'encoder_attention_mask'",
    ),
    "TextToVideoZero": _DETACHED,
    "TextToVideoZeroSDXL": _DETACHED,
}

STAYS = {
    *(
        "AnimateDiffPAG",
        "HunyuanDiTPAG",
        "PixArtSigmaPAG",
        "SanaPAG",
        "StableDiffusion3PAG",
        "StableDiffusion3PAGImg2Img",
    ),
    *("StableDiffusionControlNetPAG", "StableDiffusionControlNetPAGInpaint", "StableDiffusionPAG"),
    *("StableDiffusionPAGImg2Img", "StableDiffusionPAGInpaint", "StableDiffusionSAG", "StableDiffusionXLControlNetPAG"),
    *("StableDiffusionXLControlNetPAGImg2Img", "StableDiffusionXLPAG", "StableDiffusionXLPAGImg2Img"),
    "StableDiffusionXLPAGInpaint",
    *("Flux2KleinKV", "GlmImage", "QwenImage21"),
}
"""These put other attention processors into their denoiser for a call, or call it with a cache, so that only the
sampler can run the backward pass of a kept step."""

NOT_RUN = {
    "predict tokens, of which a reward has no derivative": "Amused AmusedImg2Img AmusedInpaint DiffusionGemma LLaDA2 "
    "VQDiffusion",
    "make no denoising steps": "FluxPriorRedux LTX2LatentUpsample LTXLatentUpsample",
    "cannot be made without the package cosmos_guardrail": "Cosmos2TextToImage Cosmos2VideoToWorld "
    "Cosmos2_5_PredictBase Cosmos2_5_Transfer CosmosTextToWorld CosmosVideoToWorld",
    "cannot be made without torchvision": "OmniGen",
    "have several schedulers and none of them is `scheduler`": "RFD4Proteina",
    "have several schedulers, and return numpy arrays whatever is asked for": "UnCLIP UnCLIPImageVariation",
    "denoises inside its decoder, without its scheduler": "LTX2VideoDiffusionDecode",
    "has no call of its own, but one method for each of the other three": "VersatileDiffusion",
    "fail by themselves with transformers 5: their Q-Former uses a method that is gone": "BlipDiffusion "
    "BlipDiffusionControlNet",
    "follow a gradient of their own while they sample": "StableDiffusionAttendAndExcite StableDiffusionPix2PixZero",
}
"""Reason -> classes without a case. Of others no small build is written, and nothing is claimed."""
