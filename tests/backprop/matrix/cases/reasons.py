"""Why a pipeline class is refused, and why one is not run."""

REFUSED: dict[str, str] = {
    "AnyFlowFAR": "its attention, FlexAttention, has no backward pass on the CPU",
    "ChromaInpaint": "fails by itself in diffusers 0.42: reads `guidance_embeds`, which its transformer's config lacks",
    "CycleDiffusion": "the gradient of its noise inversion is not finite",
    "EasyAnimateControl": "fails by itself in diffusers 0.42: gives `encode_prompt` an argument that it lacks",
    "EasyAnimateInpaint": "fails by itself in diffusers 0.42: reads `cache_mag_vae` of a config without it",
    "Kandinsky5I2V": "normalises its first frames in place; autograd refuses the backward pass",
    "KarrasVe": "its scheduler's step takes noised latents as well",
    "MarigoldNormals": "normalises its prediction in place; autograd refuses the backward pass",
    "PNDM": "returns numpy arrays whatever is asked for",
    "RePaint": "returns numpy arrays whatever is asked for",
    "ScoreSdeVe": "its scheduler has no `step` (predictor and corrector of its own)",
    "StableDiffusionLDM3D": "has no tensor output",
    "StableDiffusionPanorama": "counts its views in place after dividing by them; autograd refuses the backward pass",
    "StableDiffusionParadigms": "steps through windows in parallel, without its scheduler's `step`",
    "ZImageOmni": "casts its picture to bfloat16, whatever the type of its autoencoder",
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

NOT_RUN = {
    "predict tokens, of which a reward has no derivative": "Amused AmusedImg2Img AmusedInpaint DiffusionGemma LLaDA2 "
    "VQDiffusion",
    "make no denoising steps": "FluxPriorRedux LTX2LatentUpsample LTXLatentUpsample",
    "cannot be made without the package cosmos_guardrail": "Cosmos2TextToImage Cosmos2VideoToWorld "
    "Cosmos2_5_PredictBase CosmosTextToWorld CosmosVideoToWorld",
    "cannot be made without torchvision": "OmniGen",
    "have several schedulers and none of them is `scheduler`": "RFD4Proteina UnCLIP UnCLIPImageVariation",
    "follow a gradient of their own while they sample": "StableDiffusionAttendAndExcite StableDiffusionPix2PixZero",
}
"""Reason -> classes without a case. Of others no small build is written, and nothing is claimed."""
