"""Tiny configurations of the UNets of diffusers, and of what goes with them."""

from typing import Any

from .text import WIDTH

BLOCKS_2D = {
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
}
UNET = BLOCKS_2D | {
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
}
# Stable Diffusion XL's additions to a UNet or ControlNet; two encoders of WIDTH side by side.
XL = {
    "attention_head_dim": (2, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + WIDTH,
    "cross_attention_dim": 2 * WIDTH,
}

CONVOLUTIONAL: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": UNET,
    "UNet2DModel": BLOCKS_2D
    | {
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    },
    "AudioLDM2UNet2DConditionModel": UNET | {"cross_attention_dim": ((None, WIDTH, WIDTH),) * 2},
    "UNetFlatConditionModel": UNET
    | {
        "down_block_types": ("DownBlockFlat", "CrossAttnDownBlockFlat"),
        "up_block_types": ("CrossAttnUpBlockFlat", "UpBlockFlat"),
        "mid_block_type": "UNetMidBlockFlatCrossAttn",
    },
    "UNet1DModel": {
        "block_out_channels": (32, 32),
        "in_channels": 2,
        "out_channels": 2,
        "extra_in_channels": 64,
        "sample_size": 64,
        "sample_rate": 16,
        "down_block_types": ("DownBlock1DNoSkip", "AttnDownBlock1D"),
        "up_block_types": ("AttnUpBlock1D", "UpBlock1DNoSkip"),
    },
    "UNet3DConditionModel": UNET
    | {
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "attention_head_dim": 4,
    },
    "DreamLiteUNetModel": UNET
    | {
        "addition_embed_type": "time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16,
        "use_linear_projection": True,
        "attention_head_dim": 2,
    },
    "I2VGenXLUNet": {
        "block_out_channels": (16, 32),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
        "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 8,
    },
    "UNetSpatioTemporalConditionModel": {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "cross_attention_dim": WIDTH,
        "num_attention_heads": (2, 2),
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24,
    },
    "MotionAdapter": {
        "block_out_channels": (8, 16),
        "motion_layers_per_block": 1,
        "motion_norm_num_groups": 2,
        "motion_num_attention_heads": 2,
    },
    "ControlNetModel": {k: v for k, v in UNET.items() if k not in ("sample_size", "up_block_types")}
    | {"conditioning_embedding_out_channels": (8, 8)},
    "ControlNetUnionModel": {k: v for k, v in UNET.items() if k not in ("sample_size", "up_block_types")}
    | {
        "conditioning_embedding_out_channels": (8, 8),
        "num_trans_channel": 8,
        "num_trans_head": 2,
        "num_proj_channel": 8,
    },
    "SparseControlNetModel": {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "conditioning_embedding_out_channels": (8, 8),
        "motion_num_attention_heads": 2,
    },
    "T2IAdapter": {"channels": [8, 16], "num_res_blocks": 1, "downscale_factor": 2},
    "Kandinsky3UNet": {
        "groups": 2,
        "attention_head_dim": 4,
        "layers_per_block": 3,
        "block_out_channels": (32, 64),
        "cross_attention_dim": 32,
        "encoder_hid_dim": WIDTH,
        "time_embedding_dim": 4,
    },
    "PriorTransformer": {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 1,
        "embedding_dim": WIDTH,
        "num_embeddings": 77,
        "additional_embeddings": 4,
    },
    "WuerstchenPrior": {"c_in": 2, "c": 8, "depth": 2, "c_cond": WIDTH, "c_r": 8, "nhead": 2},
    "WuerstchenDiffNeXt": {
        "c_cond": WIDTH,
        "c_hidden": [WIDTH],
        "nhead": [-1],
        "blocks": [4],
        "level_config": ["CT"],
        "clip_embd": WIDTH,
        "inject_effnet": [False],
    },
    "StableCascadeUNet": {
        "conditioning_dim": 16,
        "block_out_channels": (16, 32),
        "num_attention_heads": (2, 2),
        "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1),
        "clip_text_pooled_in_channels": WIDTH,
    },
}
