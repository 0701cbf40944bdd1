"""How large an image gets as a JPEG: the opposite of `jpeg_compressibility`, the other black-box reward of DDPO."""

from torch import Tensor

from rewards.jpeg_compressibility import JpegCompressibility


class JpegIncompressibility(JpegCompressibility):
    """The size of the JPEG file, in kB (1,000 bytes)."""

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], in kB, all positive; NaN for an image with non-finite pixels. Prompts do not matter."""
        return -super().__call__(images, prompts)
