"""How near a batch's images are to reference images as a distribution: kernel MMD, for fine-tuning samplers.

Aiello et al., "Fast Inference in Denoising Diffusion Models via MMD Finetuning", 2301.07969; the unbiased estimate of
Gretton et al., JMLR 2012, equation 3.

Notation
    u_b, r_m   features of the batch's images and of the references, of length 1
    k(u, r)    exp(-|u - r|^2 / (2 h^2))

    s_b = 2 mean over m of k(u_b, r_m) - mean over c != b of k(u_b, u_c) - mean over m != n of k(r_m, r_n)

whose mean over the batch is -MMD^2.
"""

from pathlib import Path

import torch
from torch import Tensor

from rewards.towers.image_features import ToReferences
from rewards.towers.whole_batch import mean_over_others, over_valid


class Mmd(ToReferences):
    """What an image adds to minus the squared MMD of its batch from reference images; 0 for the same distribution.

    Args:
        references: a folder of image files, two or more.
        bandwidth: h, of the kernel, in features of length 1.
        source: DINOv2, CLIP or SigLIP, hub id or local folder; or `efficientnet-lite0`, of the extra `emoji`.
        revision: of the hub.
        dtype: what the network computes in.
        device: where to compute.

    Raises:
        OSError: the model is not there, or has no safetensors.
        ValueError: it is of another kind, there are too few images, or the bandwidth is not positive.
    """

    batchwise = True
    min_references = 2

    def __init__(
        self,
        *,
        references: Path,
        bandwidth: float = 0.5,
        source: str = "facebook/dinov2-base",
        revision: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        if bandwidth <= 0:
            raise ValueError(f"option 'bandwidth' must be positive, got {bandwidth}")
        super().__init__(references=references, source=source, revision=revision, dtype=dtype, device=device)
        self._bandwidth = bandwidth
        self._own = mean_over_others(self._kernel(self._references, self._references)).mean()

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, [B], of images, [B, 3, H, W] in [0, 1]; NaN in a batch of one."""
        return over_valid(self._tower.images(images), self._scores)

    def _scores(self, features: Tensor) -> Tensor:
        to_references = self._kernel(features, self._references).mean(1)
        return 2 * to_references - mean_over_others(self._kernel(features, features)) - self._own

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        """k of each pair, [n, m]; of vectors of length 1, |a - b|^2 is 2 - 2 <a, b>."""
        return torch.exp((a @ b.T - 1) / self._bandwidth**2)
