"""The file for ComfyUI and others: plain diffusers draws the same with it, and its names are those of its readers."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from diffusers import FluxPipeline, UNet2DConditionModel

from sdo_ray.export.factors import Factors, read_adapter
from sdo_ray.export.kohya import kohya_tensors, row_scales, stacked, write_kohya
from sdo_ray.export.names import Published, published_layer
from sdo_ray.models.denoisers import denoiser_skeletons, text_encoder_skeletons
from sdo_ray.settings import SettingsError
from tests.export.models import MODELS, adapted, draw, plain, save_base

ONE_BIT = 1e-5
"""Readers multiply by alpha / rank in another order."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bases")
    for name in MODELS:
        save_base(name, directory / name)
    return directory


def modules_of(base: Path) -> dict[str, torch.nn.Module]:
    return denoiser_skeletons(str(base)) | text_encoder_skeletons(str(base))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "flux", "flux2", "qwen", "wan", "ltx", "ltx2"])
def test_plain_diffusers_draws_the_same_from_both_files(bases: Path, tmp_path: Path, name: str) -> None:
    base = bases / name
    file = adapted(name, base, tmp_path)
    write_kohya(tmp_path / "other.safetensors", read_adapter(file), modules_of(base), {})
    before, one, other = draw(plain(base), name), plain(base), plain(base)
    one.load_lora_weights(file.parent)
    other.load_lora_weights(tmp_path, weight_name="other.safetensors")
    expected = draw(one, name)
    assert (expected - before).abs().max() > 50 * ONE_BIT
    torch.testing.assert_close(draw(other, name), expected, atol=ONE_BIT, rtol=0)


SD3_READER = {
    "x_block_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block_attn_proj": ("attn.to_out.0",),
    "x_block_mlp_fc2": ("ff.net.2",),
    "context_block_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block_mlp_fc1": ("ff_context.net.0.proj",),
}
"""Where SD3's blocks lie in those of diffusers: of ComfyUI's table `MMDIT_MAP_BLOCK`, and its thirds of `qkv`."""


def as_comfyui_reads_it(tensors: dict[str, torch.Tensor], name: str, weight: torch.Tensor) -> torch.Tensor:
    """The new weight by the formulas of ComfyUI's `LoRAAdapter.calculate_weight` and `weight_decompose`, strength 1."""
    down, up, alpha = (tensors[f"{name}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
    new = weight + (alpha / len(down)) * (up.flatten(1) @ down.flatten(1)).view_as(weight)
    scale = tensors.get(f"{name}.dora_scale")
    if scale is None:
        return new
    assert scale.shape == (len(weight), *[1] * (weight.dim() - 1))  # so that the base's rows are its measure
    length = weight.flatten(1).norm(dim=1).view_as(scale) + torch.finfo(weight.dtype).eps
    return new * (scale / length)


@pytest.mark.parametrize("kind", [{}, {"dora": True}])
def test_sd3_as_comfyui_reads_it(bases: Path, tmp_path: Path, kind: dict[str, bool]) -> None:
    """diffusers does not: so the reader's formulas, on the reader's names."""
    base = bases / "sd3"
    file = adapted("sd3", base, tmp_path, **kind)
    merged, one = plain(base), plain(base)
    tensors = kohya_tensors(read_adapter(file), {"transformer": merged.transformer})
    for name in [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]:
        number, inner = name.removeprefix("lora_unet_joint_blocks_").split("_", 1)
        weights = [
            merged.transformer.get_parameter(f"transformer_blocks.{number}.{part}.weight") for part in SD3_READER[inner]
        ]
        new = as_comfyui_reads_it(tensors, name, torch.cat([weight.detach() for weight in weights]))
        for weight, own in zip(weights, new.chunk(len(weights)), strict=True):
            weight.data = own
    one.load_lora_weights(file.parent)
    expected = draw(one, "sd3")
    assert not torch.allclose(expected, draw(plain(base), "sd3"), atol=1e-2)
    torch.testing.assert_close(draw(merged, "sd3"), expected, atol=1e-4, rtol=0)


def test_a_dora_as_comfyui_reads_it(bases: Path, tmp_path: Path) -> None:
    """Linear layers and convolutions, whose names there are those of diffusers with _ for dots."""
    file = adapted("sd15", bases / "sd15", tmp_path, text=False, dora=True)
    merged, one = plain(bases / "sd15"), plain(bases / "sd15")
    tensors = kohya_tensors(read_adapter(file), {"unet": merged.unet})
    assert {tensor.dim() for name, tensor in tensors.items() if name.endswith(".dora_scale")} == {2, 4}
    read = 0
    for layer, part in merged.unet.named_modules():
        name = "lora_unet_" + layer.replace(".", "_")
        if f"{name}.alpha" in tensors:
            part.weight.data = as_comfyui_reads_it(tensors, name, part.weight.detach())
            read += 1
    assert read == sum(name.endswith(".dora_scale") for name in tensors)
    one.load_lora_weights(file.parent)
    expected = draw(one, "sd15")
    assert not torch.allclose(expected, draw(plain(bases / "sd15"), "sd15"), atol=1e-2)
    torch.testing.assert_close(draw(merged, "sd15"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("missing", ["", "proj_mlp", "attn.to_k"])
def test_fused_layers_of_flux_at_its_own_size(missing: str) -> None:
    """diffusers splits them where FLUX.1 does, whatever the size of the model; q, k, v and mlp are one layer there."""
    rows = {"attn.to_q": 3072, "attn.to_k": 3072, "attn.to_v": 3072, "proj_mlp": 12288}
    layers = {
        f"single_transformer_blocks.3.{name}": Factors(torch.randn(2, 3072), torch.randn(height, 2), 6.0)
        for name, height in rows.items()
        if name != missing
    }

    class FluxTransformer2DModel(torch.nn.Module):
        """Its weights' shapes."""

        def get_parameter(self, target: str) -> torch.nn.Parameter:
            name = target.removeprefix("single_transformer_blocks.3.").removesuffix(".weight")
            return torch.nn.Parameter(torch.empty(rows[name], 3072, device="meta"))

    tensors = kohya_tensors({"transformer": layers}, {"transformer": FluxTransformer2DModel()})
    assert {name.split(".")[0] for name in tensors} == {"lora_unet_single_blocks_3_linear1"}
    x = torch.randn(3072)
    read, _ = FluxPipeline.lora_state_dict(dict(tensors), return_alphas=True)
    for name, height in rows.items():
        key = f"transformer.single_transformer_blocks.3.{name}"
        change = read[f"{key}.lora_B.weight"] @ (read[f"{key}.lora_A.weight"] @ x)
        own = layers.get(key.removeprefix("transformer."))
        expected = torch.zeros(height) if own is None else 3.0 * own.up @ (own.down @ x)
        torch.testing.assert_close(change, expected, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        (
            "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_v",
            "input_blocks.8.1.transformer_blocks.9.attn2.to_v",
        ),
        ("up_blocks.0.attentions.2.proj_out", "output_blocks.2.1.proj_out"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.1.attentions.0.proj_in", "output_blocks.3.1.proj_in"),
        ("up_blocks.2.resnets.2.conv2", "output_blocks.8.0.out_layers.3"),
    ],
)
def test_sdxl_numbers_its_levels_through(ours: str, theirs: str) -> None:
    """At its true size, two layers a level; as sd-scripts' `make_unet_conversion_map` has them."""
    unet = UNet2DConditionModel.__new__(UNet2DConditionModel)
    unet.register_to_config(addition_embed_type="text_time", layers_per_block=2)
    assert published_layer(unet, ours) == Published(theirs, (ours,))


def test_the_names_of_sdxl_are_those_of_its_own_unet(bases: Path, tmp_path: Path) -> None:
    """As sd-scripts lists SDXL's modules: a level has its layers and one to the next size."""
    names = kohya_tensors(read_adapter(adapted("sdxl", bases / "sdxl", tmp_path)), modules_of(bases / "sdxl"))
    given = {name.split(".")[0] for name in names}
    assert {
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_unet_input_blocks_1_0_out_layers_3",
        "lora_unet_input_blocks_1_0_emb_layers_1",
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_middle_block_0_in_layers_2",
        "lora_unet_middle_block_1_transformer_blocks_0_attn2_to_out_0",
        "lora_unet_middle_block_2_in_layers_2",
        "lora_unet_output_blocks_0_0_skip_connection",
        "lora_unet_output_blocks_0_1_transformer_blocks_0_ff_net_2",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    } <= given
    assert not any("down_blocks" in name or "resnets" in name for name in given)


def test_alpha_is_the_true_one(bases: Path, tmp_path: Path) -> None:
    file = adapted("sd15", bases / "sd15", tmp_path, text=False)
    write_kohya(tmp_path / "other.safetensors", read_adapter(file), modules_of(bases / "sd15"), {"ss_output_name": "x"})
    tensors = safetensors.torch.load_file(tmp_path / "other.safetensors")
    assert {float(value) for name, value in tensors.items() if name.endswith(".alpha")} == {6.0}
    with safetensors.safe_open(tmp_path / "other.safetensors", "pt") as opened:
        assert opened.metadata() == {
            "ss_network_alpha": "6.0",
            "ss_network_dim": "2",
            "ss_network_module": "networks.lora",
            "ss_output_name": "x",
        }


def test_a_rank_stabilised_adapter_keeps_its_strength(bases: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    one = plain(bases / "sd15")
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["to_q"], use_rslora=True, init_lora_weights=False)
    one.unet.add_adapter(config)
    settings = {key: sorted(v) if isinstance(v, set) else v for key, v in config.to_dict().items()}
    one.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(one.unet), unet_lora_adapter_metadata=settings
    )
    found = read_adapter(tmp_path / "pytorch_lora_weights.safetensors")
    assert {factors.scale for factors in found["unet"].values()} == {6 / 4**0.5}
    other = plain(bases / "sd15")
    write_kohya(tmp_path / "other.safetensors", found, modules_of(bases / "sd15"), {})
    other.load_lora_weights(tmp_path, weight_name="other.safetensors")
    torch.testing.assert_close(draw(other, "sd15"), draw(one, "sd15"), atol=ONE_BIT, rtol=0)


def test_layers_without_a_name_are_refused(bases: Path) -> None:
    layers = {"time_text_embed.timestep_embedder.linear_1": Factors(torch.ones(2, 4), torch.ones(4, 2), 2.0)}
    with pytest.raises(SettingsError, match=r"1 layers of the transformer have no name in this format.*linear_1"):
        kohya_tensors({"transformer": layers}, modules_of(bases / "flux"))


def test_an_architecture_without_names_is_refused() -> None:
    with pytest.raises(SettingsError, match="a Linear has no names in this format here; UNet2DConditionModel"):
        kohya_tensors({"transformer": {}}, {"transformer": torch.nn.Linear(2, 2)})


def test_parts_with_strengths_of_their_own_keep_them() -> None:
    one, other = (Factors(torch.randn(r, 5), torch.randn(3, r), alpha) for r, alpha in ((2, 4.0), (4, 1.0)))
    both = stacked([one, None, other], [3, 2, 3])
    expected = torch.cat([2.0 * one.up @ one.down, torch.zeros(2, 5), 0.25 * other.up @ other.down])
    torch.testing.assert_close(both.scale * both.up @ both.down, expected)


def test_rows_without_an_update_keep_their_length() -> None:
    """Of a layer that is one with another's, which has an update."""
    weight = torch.randn(3, 5)
    torch.testing.assert_close(row_scales(None, weight), weight.norm(dim=1))
    plain_part = Factors(torch.randn(2, 5), torch.randn(3, 2), 4.0)
    torch.testing.assert_close(row_scales(plain_part, weight), weight.norm(dim=1))
