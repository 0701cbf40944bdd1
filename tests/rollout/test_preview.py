import io
from typing import Any

import numpy as np
import PIL.Image

from sdo_ray.rollout.preview import preview
from sdo_ray.rollout.settings import SamplingSettings
from tests.backprop.tiny import stable_diffusion


def test_no_more_images_at_once_than_a_batch_has() -> None:
    pipeline: Any = stable_diffusion()
    sizes: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    sampling = SamplingSettings(num_inference_steps=2, guidance_scale=1.0)
    in_parts, whole = (
        np.asarray(PIL.Image.open(io.BytesIO(preview(pipeline, sampling, "abcde", 3, size)))) for size in (2, 5)
    )
    assert sizes == [2, 2, 2, 2, 1, 1, 5, 5]
    assert np.abs(in_parts.astype(int) - whole).max() <= 1
