"""VideoReward of VideoAlign: is a video good to look at, does it move well, does it show its prompt. 2501.13918.

Liu et al., "Improving Video Generation with Human Feedback".

    frames, instruction -> Qwen2-VL -> states at <|VQ_reward|>, <|MQ_reward|>, <|TA_reward|> -> head -> q_1, q_2, q_3
    score_i = (q_i - mean_i) / std_i,    overall = their sum
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rewards.towers.adapters import merged
from rewards.towers.checkpoint import FromHub, describe, find_folder, read_tensors
from rewards.towers.sharing import network, seen
from rewards.towers.token_head import TokenHead, check_instruction

ASPECTS = ("VQ", "MQ", "TA")
TOKENS = tuple(f"<|{aspect}_reward|>" for aspect in ASPECTS)
_FILES = ("model_config.json", "checkpoint-*/*.pth", "checkpoint-*/*.safetensors")
_LEAST_PIXELS = 128 * 28 * 28
"""Of a frame; smaller ones are enlarged."""
_FRAMES = (4, 768)
"""At least and at most."""


class VideoAlign(FromHub):
    """VideoReward: visual quality, motion, match with the prompt, or their sum; each 0 on average, with deviation 1.

    Args:
        instruction: text file with what the authors ask, `DETAILED_PROMPT_WITH_SPECIAL_TOKEN` in `prompt_template.py`
            of github.com/KwaiVGI/VideoAlign; it has "{text_prompt}" and the three tokens.
        aspect: "VQ", visual quality; "MQ", motion quality; "TA", text alignment; or "overall".
        frame_rate: at which the videos are to be played, frames a second. The authors look at two frames a second.
        source: hub id, or local folder with `model_config.json` and `checkpoint-N`, of which the last is taken.
        base: the model that it was trained from, for its configuration and tokenizer, and for what a checkpoint of
            adapters alone does not have; hub id or local folder.
        revision: of the weights on the hub.
        dtype: what the model computes in; the head is in float32.
        device: where to compute.

    Raises:
        OSError: a file is not there.
        ValueError: the weights have other keys or shapes, or the instruction lacks what it must have.
    """

    differentiable = True
    modality = "video"
    licence = "MIT"

    def __init__(
        self,
        *,
        instruction: Path,
        aspect: Literal["VQ", "MQ", "TA", "overall"] = "overall",
        frame_rate: float = 16.0,
        source: str = "KwaiVGI/VideoReward",
        base: str = "Qwen/Qwen2-VL-2B-Instruct",
        revision: str | None = None,
        dtype: str = "bfloat16",
        device: str = "cpu",
    ) -> None:
        self.check_use((), instruction=instruction, frame_rate=frame_rate)
        self.device = device
        self._instruction = "\n" + instruction.read_text().strip("\n") + "\n"  # as theirs begins and ends
        self._judge = network(_Judge, source, base, revision, dtype, device)
        self._share = self._judge.frames_per_second / frame_rate
        self._counted = torch.tensor([float(aspect in (name, "overall")) for name in ASPECTS], device=device)
        self.checkpoints = (self._judge.checkpoint,)

    @classmethod
    def check_use(cls, prompts: Sequence[str], **options: Any) -> None:
        """Refuse an instruction that is none, rates that are none, and what `FromHub` refuses."""
        super().check_use(prompts, **options)
        if "instruction" in options:
            check_instruction(options["instruction"], "{text_prompt}", *TOKENS)
        if options.get("frame_rate", 1.0) <= 0:
            raise ValueError(f"option 'frame_rate' must be above 0, in frames a second, got {options['frame_rate']}")

    def __call__(self, videos: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of videos, [B, F, 3, H, W] in [0, 1], for B prompts; one video after the other."""
        asked = [self._instruction.replace("{text_prompt}", prompt) for prompt in prompts]
        found = seen(self._judge, videos, lambda: self._judge(videos, asked, self._share), self._share, *asked)
        return (found * self._counted).sum(1)


class _Judge:
    """Standardised scores of videos, [B, 3], all aspects."""

    def __init__(self, source: str, base: str, revision: str | None, dtype: str, device: str) -> None:
        folder = find_folder(source, revision, _FILES)
        settings = json.loads((folder / "model_config.json").read_text())
        files, tensors = _read(folder, base)
        outputs, most = settings["model_config"]["output_dim"], settings["data_config"]["max_frame_pixels"]
        self._model = TokenHead(
            base,
            TOKENS,
            merged(tensors, settings["peft_lora_config"]),
            lambda width: nn.Linear(width, outputs, bias=False),
            "VideoReward",
            (min(_LEAST_PIXELS, most), most),
            dtype,
            device,
        )
        scale = settings.get("inference_config") or {}
        self._mean = torch.tensor([scale.get(f"{name}_mean", 0.0) for name in ASPECTS], device=device)
        self._std = torch.tensor([scale.get(f"{name}_std", 1.0) for name in ASPECTS], device=device)
        self.frames_per_second = settings["data_config"]["fps"]
        self.checkpoint = describe(source, *files)

    def __call__(self, videos: Tensor, asked: Sequence[str], share: float) -> Tensor:
        return torch.stack([self._score(video, text, share) for video, text in zip(videos, asked, strict=True)])

    def _score(self, video: Tensor, text: str, share: float) -> Tensor:
        frames = video[frame_places(len(video), share)]
        found = self._model(self._model.vlm.video_inputs(frames, text))
        return ((found[:, 0] if found.shape[1] == 1 else found.diagonal()) - self._mean) / self._std


def frame_places(num_frames: int, share: float) -> list[int]:
    """Which frames are looked at: `share` of them, an even number of evenly spaced ones, from the first to the last.

    At least 4 and at most 768; all of a video that has fewer.
    """
    least, most = _FRAMES
    wanted = min(max(num_frames * share, least), most, num_frames // 2 * 2)
    count = max(2, round(wanted / 2) * 2)
    return torch.linspace(0, num_frames - 1, count).round().long().tolist()


def _read(folder: Path, base: str) -> tuple[list[Path], dict[str, Tensor]]:
    """The files of the last checkpoint, and its tensors: all of them, or adapters and what was trained beside them."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not checkpoints:
        raise FileNotFoundError(f"there is no checkpoint-N in {str(folder)!r}")
    last = checkpoints[-1]
    if (whole := last / "model.pth").is_file():
        return [whole], read_tensors(whole)
    parts = [last / "adapter_model.safetensors", last / "non_lora_state_dict.pth"]
    tensors: dict[str, Tensor] = {}
    for file in sorted(find_folder(base).glob("*.safetensors")):
        tensors |= {f"base_model.model.{key}": tensor for key, tensor in load_file(file).items()}
    for file in parts:
        tensors |= read_tensors(file)
    return parts, tensors
