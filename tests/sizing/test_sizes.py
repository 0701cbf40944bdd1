"""What is found without values is what a call with values takes."""

import copy
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.config.align import AlignSettings
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.policy import attach_working_copy
from sdo_ray.models.quantised import quantised_bytes
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings, activations_of_one, choose_kept_graph
from sdo_ray.rollout.preparation import set_decoding
from sdo_ray.rollout.settings import Decode, LearningSamplerSettings, PlanSettings
from sdo_ray.settings import SettingsError
from sdo_ray.sizing.needs import Batches, image_operations, sampler_bytes
from sdo_ray.sizing.report import needs_of, sizes_of_model
from sdo_ray.sizing.sizes import Sizes, sizes_of
from sdo_ray.sizing.takes import Takes, takes
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.matrix.check import adapt

QUICK = ["StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "AuraFlow"]
SLOW = [
    *("Flux", "QwenImage", "Wan", "LTX", "HunyuanVideo", "Sana", "StableDiffusionPAG", "LatentConsistencyModel"),
    *("CogVideoX", "Mochi", "Lumina2", "Flux2Klein"),
]
SMALL = {"height": 32, "width": 32, "num_frames": 5, "max_sequence_length": 16, "text_encoder_out_layers": (1,)}
MODEL = ModelSettings.model_validate({"base": "tiny", "lora": {"rank": 2, "targets": ["to_q", "to_out.0"]}})


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_what_is_saved(name: str) -> None:
    pipeline = assemble(f"{name}Pipeline", CASES[name].parts)
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    taken = inspect.signature(type(pipeline).__call__).parameters
    size = {key: value for key, value in SMALL.items() if key in taken}
    sampling = LearnedSamplingSettings(num_inference_steps=2, options=size)
    skeletons = {name: copy.deepcopy(part).to("meta") for name, part in modules.items()}
    found = sizes_of(pipeline, skeletons, MODEL, sampling, blocks=False)
    learned = attach_working_copy(pipeline.components, MODEL)
    assert found.trained == sum(p.numel() for part in learned.values() for p in part.parameters() if p.requires_grad)
    # Exactly, but for decoders of videos, which keep more or less of what they remember of earlier frames, and for
    # pipelines that put attention of their own in for the call.
    tolerance = 0.1 if "num_frames" in size or name in ("QwenImage", "StableDiffusionPAG") else 0.001
    if name == "Lumina2":  # counts the half without a prompt as long as the other
        tolerance = 0.2
    assert found.step.saved + found.decoder.saved == pytest.approx(
        activations_of_one(pipeline, sampling), rel=tolerance
    )
    assert found.step.held >= found.step.saved > 0
    assert found.step.passing > 0
    assert found.step.learning > 1.2 * found.step.forward > 0


@pytest.mark.parametrize(
    ("name", "frames", "decode", "expected"),
    [
        ("AnimateDiff", 4, "whole", True),
        ("LTX", 25, "whole", False),
        ("LTX", 25, "frames", True),
        ("LTX", 9, "frames", False),  # one run
        ("Wan", 5, "whole", False),
        ("Wan", 5, "frames", True),
    ],
)
def test_the_plan_knows_as_the_run_which_decoders_make_frames_apart(
    name: str, frames: int, decode: Decode, expected: bool
) -> None:
    pipeline = assemble(f"{name}Pipeline", CASES[name].parts)
    set_decoding(pipeline, decode)
    adapt(pipeline)
    options = {"height": 32, "width": 32, "num_frames": frames}
    sampling = LearnedSamplingSettings(num_inference_steps=2, options=options, decode=decode)
    chosen = choose_kept_graph(pipeline, sampling, PlanSettings(), LearningSamplerSettings(), some_frames=True)
    assert chosen == ("steps" if expected else "retain")
    pipeline = assemble(f"{name}Pipeline", CASES[name].parts)
    set_decoding(pipeline, decode)
    parts = {key: part for key, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    skeletons = {key: copy.deepcopy(part).requires_grad_(False).to("meta") for key, part in parts.items()}
    assert sizes_of(pipeline, skeletons, MODEL, sampling, blocks=False).apart == expected


def test_some_frames_have_a_row_of_their_own(tmp_path: Path) -> None:
    assemble("AnimateDiffPipeline", CASES["AnimateDiff"].parts).save_pretrained(tmp_path / "base")
    prompts, judged = str(tmp_path / "prompts.txt"), {"name": "sharpness", "frames": {"take": 1}}
    Path(prompts).write_text("a\nb\n")
    settings = AlignSettings.model_validate(
        {
            "run": {"name": "some"},
            "model": MODEL.model_dump(mode="json") | {"base": str(tmp_path / "base")},
            "prompts": {"train": prompts},
            "sampling": {"num_inference_steps": 2, "options": {"height": 32, "width": 32, "num_frames": 4}},
            "rewards": {"terms": [judged]},
            "evaluation": {"prompts": prompts, "evaluators": [judged]},
        }
    )
    rows = [line for line in needs_of(settings) if line.startswith(("  retain", "  auto", "  recompute"))]
    assert [row.split("  ")[1] for row in rows] == [*["retain"] * 2, *["auto, kept steps"] * 2, *["recompute"] * 2]
    assert [i for i, row in enumerate(rows) if row.endswith("<- these settings")] == [2, 4]
    retain, some, recompute = (float(row.replace("auto, kept steps", "auto").split()[2]) for row in rows[::2])
    assert retain > some > recompute


def test_the_plan_marks_what_a_run_may_choose_and_refuses_what_it_refuses(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a\nb\n")
    given: dict[str, Any] = {
        "run": {"name": "some"},
        "model": {"base": "zoo://emoji"},
        "prompts": {"train": str(prompts)},
        "sampling": {"num_inference_steps": 2},
        "rewards": {"terms": [{"name": "sharpness"}]},
        "evaluation": {"prompts": str(prompts), "evaluators": [{"name": "sharpness"}]},
    }
    rows = [line for line in needs_of(AlignSettings.model_validate(given)) if "<- these settings" in line]
    assert [row.split("  ")[1] for row in rows] == ["retain", "auto, kept steps", "recompute"]
    given["sampling"]["kept_graph"] = "recompute"
    lines = list(needs_of(AlignSettings.model_validate(given)))
    assert [line.split("  ")[1] for line in lines if "<- these settings" in line] == ["recompute"]
    assert not any("auto" in line for line in lines)
    assemble("WanPipeline", CASES["Wan"].parts).save_pretrained(tmp_path / "wan")
    given["model"] = MODEL.model_dump(mode="json") | {"base": str(tmp_path / "wan")}
    given["sampling"] |= {"options": {"height": 32, "width": 32, "num_frames": 5}}
    given["sampling"] |= {"decode": "frames", "kept_graph": "retain"}
    with pytest.raises(SettingsError, match=r"^sampling\.decode: got 'frames' beside kept_graph: retain"):
        list(needs_of(AlignSettings.model_validate(given)))


def test_a_model_in_half_precision_saves_half(tmp_path: Path) -> None:
    """Its denoiser is given pooled texts of its own type, which attention goes on with."""
    pipeline = assemble("StableDiffusion3Pipeline", CASES["StableDiffusion3"].parts)
    pipeline.save_pretrained(tmp_path)
    sampling = LearnedSamplingSettings(num_inference_steps=2, options={"height": 32, "width": 32})
    saved = {}
    for dtype in ("float32", "bfloat16"):
        model = MODEL.model_copy(update={"base": str(tmp_path), "dtype": dtype})
        saved[dtype] = sizes_of_model(model, sampling)[False]
    assert saved["bfloat16"].weights["transformer"] == saved["float32"].weights["transformer"] / 2
    assert saved["bfloat16"].step.saved == pytest.approx(saved["float32"].step.saved / 2, rel=0.1)


@pytest.mark.parametrize("to", ["int8", "nf4"])
def test_rounded_weights_are_counted_as_what_they_are_kept_as(tiny_base: Path, to: str) -> None:
    sampling = LearnedSamplingSettings(num_inference_steps=2)
    plain = MODEL.model_copy(update={"base": str(tiny_base)})
    rounded = plain.model_copy(update={"quantize": {"unet": to}})
    whole, found = (sizes_of_model(model, sampling)[False] for model in (plain, rounded))
    saved = quantised_bytes(load_pipeline(str(tiny_base)).unet, to)
    assert whole.weights["unet"] - found.weights["unet"] == saved > whole.weights["unet"] / 10
    assert found.weights["text_encoder"] == whole.weights["text_encoder"]
    assert (found.trained, found.step) == (whole.trained, whole.step)
    with pytest.raises(SettingsError, match=r"^model\.quantize: .* has no transformer with weights"):
        sizes_of_model(plain.model_copy(update={"quantize": {"transformer": to}}), sampling)


def test_operations_and_bytes_of_a_product_and_of_attention() -> None:
    layer = torch.nn.Linear(8, 8, bias=False, device="meta", dtype=torch.float32)

    def product() -> Any:
        return layer(torch.empty(4, 8, device="meta", requires_grad=True))

    found = takes(layer, product)
    # A multiplication and an addition for each of 4 x 8 x 8; backward as many again for weights and for inputs.
    assert (found.forward, found.learning) == (2 * 256, 3 * 2 * 256)
    assert found.saved == 4 * 8 * 4  # its input

    def attention() -> Any:
        q, k = (torch.empty(1, 2, tokens, 8, device="meta", requires_grad=True) for tokens in (5, 7))
        return torch.nn.functional.scaled_dot_product_attention(q, k, k)

    found = takes(layer, attention)
    assert found.forward == 2 * 2 * 2 * 5 * 7 * 8
    assert found.learning == found.forward * 3.5
    assert found.saved == 4 * 2 * (5 * 8 + 7 * 8 + 5 * 8 + 5)  # queries, keys and values, output, sums


def test_needs_of_a_sampler() -> None:
    step = Takes(passing=10.0, saved=100.0, held=130.0, forward=5.0, learning=11.0)
    decoder = Takes(passing=40.0, saved=300.0, held=350.0, forward=7.0, learning=15.0)
    sizes = Sizes({"unet": 1000, "vae": 500}, 20, 250, step, decoder)
    retain = Batches(images=4, kept=2, steps=10, in_flight=1, kept_graph="retain")
    assert sampler_bytes(sizes, retain) == (1500, 4 * (2 * 100 + 300 + 50))
    waiting = Batches(images=4, kept=2, steps=10, in_flight=2, kept_graph="retain")
    assert sampler_bytes(sizes, waiting) == (1500, 4 * (2 * 500 + 50))
    again = Batches(images=4, kept=2, steps=10, in_flight=2, kept_graph="recompute")
    assert sampler_bytes(sizes, again) == (1500, 350)
    texts = replace(sizes, weights={"unet": 1000, "text_encoder": 300, "text_encoder_2": 5000})
    assert sampler_bytes(texts, again) == (6300, 350)
    # The larger one is there while the batch before waits with its graph.
    assert sampler_bytes(texts, replace(waiting, offloads=True)) == (1000, 4 * 500 + 5000)
    assert sampler_bytes(texts, replace(again, offloads=True)) == (1000, 5000)
    # As `retain`, without what the decoder saves; it holds an image at a time.
    some = replace(waiting, kept_graph="steps")
    assert sampler_bytes(sizes, some) == (1500, 4 * 2 * 200 + 350)
    assert sampler_bytes(replace(sizes, decoder=Takes(40.0, 9.0, 9.0, 7.0, 15.0)), some) == (1500, 4 * (2 * 200 + 30))
    assert image_operations(sizes, some) == (57, 57 + 2 * 6 + 15)
    assert image_operations(sizes, retain) == (57, 57 + 2 * 6 + 8)
    assert image_operations(sizes, again) == (57, 57 + 2 * 11 + 15)
