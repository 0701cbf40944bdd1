"""Why a pipeline class is refused, and why one is not run."""

REFUSED: dict[str, str] = {
    "ChromaInpaint": "fails by itself in diffusers 0.42: reads `guidance_embeds`, which its transformer's config lacks",
    "CycleDiffusion": "the gradient of its noise inversion is not finite",
    "KarrasVe": "its scheduler's step takes noised latents as well",
    "MarigoldNormals": "normalises its prediction in place; autograd refuses the backward pass",
    "PNDM": "returns numpy arrays whatever is asked for",
    "RePaint": "returns numpy arrays whatever is asked for",
    "ScoreSdeVe": "its scheduler has no `step` (predictor and corrector of its own)",
    "StableDiffusionLDM3D": "has no tensor output",
    "StableDiffusionPanorama": "counts its views in place after dividing by them; autograd refuses the backward pass",
}
"""These fail for the reason given, which the test holds true."""

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
