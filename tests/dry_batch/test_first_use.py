"""The rewards of docs/rewards.md, SDXL with PickScore and HPSv2.1: a batch goes through all of it, at tiny size."""

import re
from pathlib import Path

import yaml

from rewards.registry import spec_of
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.dry_batch.batch import dry_batch
from tests.rewards.tiny import clip
from tests.support.runs import REPOSITORY, tiny_settings
from tests.support.samples import saved


def test_sdxl_learns_from_both(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/rewards.md").read_text(), re.S)
    block = next(block for block in blocks if "hpsv2" in block)
    rewards = yaml.safe_load(block)["rewards"]
    (tmp_path / "pick").mkdir()
    (tmp_path / "hps").mkdir()
    head = clip.save_head(tmp_path / "head.pth", [f"layers.{i}" for i in (0, 2, 4, 6, 7)], [clip.WIDTH, 16, 8, 6, 4, 1])
    pick, hps = str(clip.save_clip_model(tmp_path / "pick")), str(clip.save_hpsv2(tmp_path / "hps"))
    tiny = {
        "pick_score": ("pick_score", {"source": pick, "tokenizer": pick}),
        "hpsv2": ("tests.rewards.tiny.clip:TinyHpsv2", {"source": hps, "tokenizer": str(tmp_path / "hps")}),
        "aesthetic_v2": ("aesthetic_v2", {"source": pick, "weights": str(head)}),
    }
    for term in rewards["terms"]:
        spec = spec_of(term["name"])
        assert spec is not None
        assert term["options"].keys() <= spec.options.keys()
        term["name"], changes = tiny[term["name"]]
        term["options"] |= changes
        term.pop("num_gpus", None)  # with one of their own, the tiny batch passes them by
    settings = load_settings(
        AlignSettings,
        tiny_settings(
            tmp_path,
            saved("StableDiffusionXL", tmp_path / "base"),
            model={"lora": {"rank": 2, "alpha": 2.0}},
            sampling={"options": {"height": 32, "width": 32}},
            rewards=rewards,
        ),
    )
    check_align(settings)
    assert dry_batch(settings) is None
