"""Feature networks: tiny real ones, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from sdo_ray.evaluation.features import EfficientNet, FeatureActor, TransformersVision, check_features
from sdo_ray.evaluation.settings import FeatureSettings
from sdo_ray.settings import SettingsError

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = SMALL | {"image_size": 32, "patch_size": 16}


def tiny(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "dinov2":
        return Dinov2Model(Dinov2Config(**{k: v for k, v in VISION.items() if k != "intermediate_size"}))
    if kind == "clip":
        text = CLIPTextConfig(**SMALL, vocab_size=16)
        return CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=CLIPVisionConfig(**VISION).to_dict(), projection_dim=8)
        )
    return ViTModel(ViTConfig(**VISION), add_pooling_layer=kind == "vit")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 24, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "features"), [("vit", 16), ("vit without pooler", 16), ("dinov2", 16), ("clip", 8)])
def test_networks_of_transformers(kind: str, features: int, images: torch.Tensor, tmp_path: Path) -> None:
    network = tiny(kind).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7]).save_pretrained(tmp_path)
    vectors = TransformersVision(model=str(tmp_path), size=32)(images)
    assert vectors.shape == (3, features)
    assert vectors.std(dim=0).min() > 0  # they say something of the image
    square = torch.nn.functional.interpolate(images, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    pixels = (square - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        if kind == "clip":
            expected = network.visual_projection(network.vision_model(pixel_values=pixels).pooler_output)
        else:
            output = network(pixel_values=pixels)
            expected = output.last_hidden_state.mean(1) if output.pooler_output is None else output.pooler_output
    torch.testing.assert_close(vectors, expected)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    tiny("vit").save_pretrained(tmp_path)
    ViTImageProcessor().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["layernorm.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks weights for 1 parameters, such as 'layernorm\.weight'"):
        TransformersVision(model=str(tmp_path))


def test_efficientnet_of_any_size(images: torch.Tensor) -> None:
    network = EfficientNet(size=64)
    vectors = network(images)
    assert vectors.shape == (3, 1280)
    torch.testing.assert_close(network(images[1:2]), vectors[1:2], rtol=1e-4, atol=1e-5)


class Means:
    """Mean colour."""

    def __init__(self, *, scale: float, flat: bool = True) -> None:
        self.scale, self.flat = scale, flat

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.mean(dim=(2, 3) if self.flat else (1, 2, 3))


MEANS = f"{__name__}:Means"


def test_the_actor_takes_arrays_and_networks_of_the_user_s_own() -> None:
    images = np.ones((2, 3, 4, 4), dtype=np.float32)
    images.setflags(write=False)  # as Ray hands them over
    actor = FeatureActor(MEANS, {"scale": 2.0}, num_threads=1, device="cpu")
    assert actor.extract(images).tolist() == [[2.0] * 3] * 2
    with pytest.raises(ValueError, match=r"returns \[2, d\] here; it returned \[2\]"):
        FeatureActor(MEANS, {"scale": 2.0, "flat": False}, num_threads=1, device="cpu").extract(images)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "dino"}, r"^name: there is no 'dino'; there are efficientnet, transformers, or"),
        ({"name": "no.such:Class"}, r"^name: there is no 'no\.such:Class'"),
        ({"name": "transformers"}, r"^options: 'transformers' needs model; give it"),
        ({"options": {"sizes": 3}}, r"'efficientnet' has no sizes; it has device, size, pooling"),
    ],
)
def test_refuses(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_features(FeatureSettings.model_validate(settings))


def test_takes_what_is_there() -> None:
    check_features(FeatureSettings())
    check_features(FeatureSettings(name=MEANS, options={"scale": 1.0}))
    check_features(FeatureSettings(name="transformers", options={"model": "org/name"}))
