"""Vision-language models of the Qwen-VL kind, asked about an image or a video whose patches are made from the tensor.

Wang et al., 2409.12191 (Qwen2-VL); Qwen2.5-VL and Qwen3-VL take patches in the same order. The processors of
transformers make them without gradients.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoTokenizer

from rewards.towers.checkpoint import describe_folder, find_folder, kind_of, load_pretrained
from rewards.towers.pixels import CLIP_MEAN, CLIP_STD, HALF, normalized, resized

MEANS_AND_STDS = {"qwen2_vl": (CLIP_MEAN, CLIP_STD), "qwen2_5_vl": (CLIP_MEAN, CLIP_STD), "qwen3_vl": (HALF, HALF)}
"""Of the pixels, by kind of model."""


class QwenVl:
    """A question about one image or video, as what the model takes.

    Args:
        model: of transformers, frozen.
        tokenizer: its tokenizer.
        kind: one of `MEANS_AND_STDS`.
        pixels: of an image or frame, at least and at most about so many; it keeps its own shape.
    """

    def __init__(self, model: Any, tokenizer: Any, kind: str, pixels: tuple[int, int]) -> None:
        self.model, self.tokenizer = model, tokenizer
        self._mean, self._std = MEANS_AND_STDS[kind]
        self._pixels = pixels

    def image_inputs(self, image: Tensor, question: str) -> dict[str, Tensor]:
        """Arguments of the model's `forward` for one image [3, H, W] in [0, 1], up to where its answer begins."""
        grid, values, asked = self._asked(image[None], question, "<|image_pad|>", self.model.config.image_token_id, 1)
        return {**asked, "pixel_values": values, "image_grid_thw": grid}

    def video_inputs(self, frames: Tensor, question: str) -> dict[str, Tensor]:
        """The same for a video of frames [F, 3, H, W]; of the kind "qwen2_vl"."""
        grid, values, asked = self._asked(frames, question, "<|video_pad|>", self.model.config.video_token_id, 2)
        return {**asked, "pixel_values_videos": values, "video_grid_thw": grid}

    def _asked(
        self, frames: Tensor, question: str, pad: str, pad_id: int, kind: int
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Grid [1, 3], patches, and the text as arguments; `kind` is what `mm_token_type_ids` has where it is seen."""
        vision = self.model.config.vision_config
        merge = vision.spatial_merge_size
        size = grid_size(frames.shape[-2], frames.shape[-1], vision.patch_size * merge, *self._pixels)
        pixels = normalized(resized(frames, *size), self._mean, self._std)
        grid = [-(-len(frames) // vision.temporal_patch_size), *(side // vision.patch_size for side in size)]
        pads = pad * (math.prod(grid) // merge**2)
        text = _turns("You are a helpful assistant.", f"<|vision_start|>{pads}<|vision_end|>{question}")
        ids = self.tokenizer(text, return_tensors="pt").input_ids.to(frames.device)
        asked = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": kind * (ids == pad_id).int(),
        }
        values = patches(pixels, vision.patch_size, merge, vision.temporal_patch_size).to(self.model.dtype)
        return torch.tensor([grid], device=frames.device), values, asked


def load_qwen_vl(source: str, revision: str | None, side: int, dtype: str, device: str) -> tuple[QwenVl, Any]:
    """A model by hub id or folder, and what it was read from.

    Raises:
        OSError: it is not there, or has no safetensors.
        ValueError: it is of another kind, or its keys are not those of its kind.
    """
    folder = find_folder(source, revision)
    kind = kind_of(folder)
    if kind not in MEANS_AND_STDS:
        raise ValueError(f"{source} is a model of kind {kind!r}; known are {', '.join(MEANS_AND_STDS)}")
    model = load_pretrained(AutoModelForImageTextToText, folder, dtype, device)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return QwenVl(model, tokenizer, kind, (side**2, side**2)), describe_folder(source, folder)


def grid_size(height: int, width: int, factor: int, least: int, most: int) -> tuple[int, int]:
    """Height and width to which an image is resized: multiples of `factor`, with `least` to `most` pixels.

    Rounded as Qwen's processor does: for 448 x 448 pixels and no others, 768 x 768 becomes 420 x 420, as
    768 / (768 / 448) is a little less than 448.
    """
    rows, columns = (max(factor, round(side / factor) * factor) for side in (height, width))
    if least <= rows * columns <= most:
        return rows, columns
    pixels, rounded = (most, math.floor) if rows * columns > most else (least, math.ceil)
    scale = math.sqrt(height * width / pixels)
    rows, columns = (max(factor, rounded(side / scale / factor) * factor) for side in (height, width))
    return rows, columns


def patches(frames: Tensor, patch: int, merge: int, temporal: int) -> Tensor:
    """Patches in the order of Qwen-VL: neighbours that will be merged follow one another.

    Args:
        frames: [F, 3, H, W]; H and W are multiples of patch * merge. A last frame is repeated until F is a multiple of
            `temporal`, so that an image is a film of `temporal` equal frames.
        patch: side of a patch.
        merge: so many patches by so many are merged.
        temporal: frames in a patch.

    Returns:
        [F / temporal * H / patch * W / patch, 3 * temporal * patch * patch].
    """
    missing = -len(frames) % temporal
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    rows, columns = (side // patch // merge for side in frames.shape[-2:])
    split = frames.reshape(-1, temporal, 3, rows, merge, patch, columns, merge, patch)
    # time, rows, columns, rows merged, columns merged, colour, frames of a patch, its rows, its columns
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 3 * temporal * patch * patch)


def _turns(system: str, user: str) -> str:
    """Qwen's chat format up to the answer."""
    said = {"system": system, "user": user}
    return "".join(_turn(who, what) for who, what in said.items() if what) + "<|im_start|>assistant\n"


def _turn(who: str, what: str) -> str:
    return f"<|im_start|>{who}\n{what}<|im_end|>\n"


def from_old_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a Qwen2-VL by the names that transformers has now, of those that it had before version 4.52."""
    if any(key.startswith("model.language_model.") for key in tensors):
        return dict(tensors)
    renamed = {}
    for key, tensor in tensors.items():
        if key.startswith("visual."):
            key = f"model.{key}"
        elif key.startswith("model."):
            key = f"model.language_model.{key.removeprefix('model.')}"
        renamed[key] = tensor
    return renamed
