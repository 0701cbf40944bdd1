"""How settings become a pipeline's call."""

from pathlib import Path

import torch

from sdo_ray.models.load import load_pipeline
from sdo_ray.rollout.settings import SamplingSettings


def test_one_negative_prompt_is_for_all_images(tiny_base: Path) -> None:
    pipeline = load_pipeline(str(tiny_base))

    def draw(**options: object) -> torch.Tensor:
        settings = SamplingSettings(num_inference_steps=2, guidance_scale=3.0, options=options)
        noise = [torch.Generator().manual_seed(i) for i in range(2)]
        return pipeline(generator=noise, output_type="pt", **settings.pipeline_call(["a", "b"])).images

    plain, avoiding = draw(), draw(negative_prompt="c")
    assert avoiding.shape == (2, 3, 16, 16)
    assert not torch.equal(plain[0], avoiding[0])
    assert not torch.equal(plain[1], avoiding[1])
    assert torch.equal(avoiding, draw(negative_prompt=["c", "c"]))
    assert draw(height=32, width=32).shape == (2, 3, 32, 32)
