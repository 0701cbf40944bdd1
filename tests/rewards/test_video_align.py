"""VideoReward: what its authors' code does with frames, positions, adapters and scales."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen2VLForConditionalGeneration

from rewards import create
from rewards.scoring import score
from rewards.towers.adapters import merged
from rewards.towers.qwen_vl import from_old_names
from rewards.video_align import ASPECTS, VideoAlign, frame_places

from .tiny.pins import images_of
from .tiny.qwen import ALPHA, SCALES, save_video_align

PROMPTS = ["cat", "two dogs"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def options(folder):
    return {**save_video_align(folder), "dtype": "float32"}


@pytest.fixture(scope="module")
def overall(options):
    return create("video_align", **options)


def test_overall_is_the_sum_of_the_three(options, overall):
    videos = images_of("video_align")
    parts = [score(create("video_align", aspect=aspect, **options), videos, PROMPTS) for aspect in ASPECTS]
    assert not torch.allclose(parts[0], parts[1])
    torch.testing.assert_close(score(overall, videos, PROMPTS), sum(parts))


@torch.no_grad()
def test_score_is_the_heads_at_the_tokens_standardised_with_positions_that_count_on(folder, options, overall):
    """As the authors' `forward` has it: what is seen is put in among the words, for the language model."""
    [video], vlm = images_of("video_align")[:1], overall._judge._model.vlm
    inputs = vlm.video_inputs(video, overall._instruction.replace("{text_prompt}", "cat"))
    tensors = torch.load(folder / "checkpoint-7" / "model.pth", weights_only=True)
    tensors = from_old_names(merged(tensors, {"lora_alpha": ALPHA}))
    head = tensors.pop("rm_head.weight")
    model = Qwen2VLForConditionalGeneration(vlm.model.config).eval()
    model.load_state_dict(tensors)
    ids = inputs["input_ids"]
    words = model.get_input_embeddings()(ids)
    seen = model.model.visual(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"]).pooler_output
    words = words.masked_scatter((ids == model.config.video_token_id)[..., None], seen)
    states = model.model.language_model(inputs_embeds=words, attention_mask=inputs["attention_mask"])[0][0]
    found = (states @ head.T)[torch.isin(ids[0], overall._judge._model._tokens), 0]
    expected = sum((q - SCALES[f"{name}_mean"]) / SCALES[f"{name}_std"] for q, name in zip(found, ASPECTS, strict=True))
    torch.testing.assert_close(score(overall, video[None], ["cat"])[0], expected, rtol=1e-4, atol=1e-5)


def test_adapters_apart_from_the_model_score_alike(tmp_path, options, overall):
    """The other layout: the base model's own weights, its adapters, and what was trained beside them."""
    apart = save_video_align(tmp_path)
    last = tmp_path / "checkpoint-7"
    tensors = torch.load(last / "model.pth", weights_only=True)
    (last / "model.pth").unlink()
    (tmp_path / "checkpoint-3").mkdir()
    adapters = {key.replace(".default.", "."): value for key, value in tensors.items() if ".lora_" in key}
    save_file(adapters, last / "adapter_model.safetensors")
    beside = {key: value for key, value in tensors.items() if "rm_head" in key or "embed_tokens" in key}
    torch.save(beside, last / "non_lora_state_dict.pth")
    base = {key: value for key, value in tensors.items() if key not in beside and ".lora_" not in key}
    base = {key.removeprefix("base_model.model.").replace(".base_layer.", "."): v for key, v in base.items()}
    save_file(base, tmp_path / "base" / "model.safetensors")
    reward = create("video_align", **{**options, **apart})
    videos = images_of("video_align")
    torch.testing.assert_close(score(reward, videos, PROMPTS), score(overall, videos, PROMPTS))


def test_a_head_of_three_outputs_has_one_for_each_token(tmp_path, options):
    reward: Any = create("video_align", **{**options, **save_video_align(tmp_path, outputs=3)})
    judge = reward._judge
    inputs = judge._model.vlm.video_inputs(
        images_of("video_align")[0], reward._instruction.replace("{text_prompt}", "cat")
    )
    scaled = (judge._model(inputs).diagonal() - judge._mean) / judge._std
    torch.testing.assert_close(score(reward, images_of("video_align")[:1], ["cat"])[0], scaled.sum())


def test_the_order_of_frames_counts(overall):
    video = images_of("video_align")[:1]
    assert not torch.allclose(score(overall, video, ["cat"]), score(overall, video[:, [3, 0, 2, 1]], ["cat"]))


@pytest.mark.parametrize(
    ("frames", "share", "expected"),
    [
        (81, 2 / 16, [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]),  # Wan: five seconds
        (16, 2 / 8, [0, 5, 10, 15]),
        (6, 2 / 24, [0, 2, 3, 5]),  # short: four all the same
        (3, 1.0, [0, 2]),
        (1, 1.0, [0, 0]),
    ],
)
def test_frames_that_are_looked_at(frames, share, expected):
    assert frame_places(frames, share) == expected


def test_a_long_video_is_looked_at_in_768_frames():
    assert len(frame_places(2000, 1.0)) == 768


def test_wrong_options(tmp_path):
    with pytest.raises(ValueError, match="'frame_rate' must be above 0, in frames a second, got 0"):
        VideoAlign.check_use((), frame_rate=0.0)
    (tmp_path / "text.txt").write_text("{text_prompt} <|VQ_reward|> <|TA_reward|>")
    with pytest.raises(ValueError, match=r"must be a text with <\|MQ_reward\|> in it"):
        VideoAlign.check_use((), instruction=tmp_path / "text.txt")
