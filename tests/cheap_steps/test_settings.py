"""What the settings say about steps, what they refuse, and that a model that cannot have them says so."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from sdo_ray.backprop import run_by
from sdo_ray.backprop.caches import cache_hooks
from sdo_ray.cheap_steps.choose import choose_runner
from sdo_ray.cheap_steps.held import held_modules, matching_modules
from sdo_ray.cheap_steps.schedule_file import write_schedule
from sdo_ray.cheap_steps.settings import CacheSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.media.picture import picture
from sdo_ray.registry.pyfunc_model import _images
from sdo_ray.registry.recipe import Recipe, read_recipe, write_recipe
from sdo_ray.rollout.preparation import runner_of
from sdo_ray.rollout.sampling import draw
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError
from tests.backprop.test_caches import CACHES, made
from tests.backprop.tiny import seeded, stable_diffusion, stable_diffusion_3


def test_which_steps_are_computed() -> None:
    assert CacheSettings(name="taylor").computed(9) == {0, 3, 6, 8}
    assert CacheSettings(name="taylor", every=2, last=3).computed(8) == {0, 2, 4, 5, 6, 7}
    assert CacheSettings(name="taylor", last=0).computed(2) == {0}
    assert CacheSettings(name="taylor", steps=[4, 2]).computed(8) == {0, 2, 4}


def test_a_text_is_a_name_and_what_is_written_can_be_read() -> None:
    short = SamplingSettings.model_validate({"cache": "deepcache"})
    assert short.cache == CacheSettings(name="deepcache")
    for cache in (short.cache, CacheSettings(name="pab"), CacheSettings(name="taylor", steps=[0, 1], order=2)):
        assert CacheSettings.model_validate(cache.to_dict()) == cache


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "first-block", "every": 2}, "`every` is given, but 'first-block' is diffusers' own"),
        ({"name": "taylor", "options": {"threshold": 1}}, "'taylor' has none"),
        ({"name": "modules"}, "go together"),
        ({"name": "taylor", "modules": ["a"]}, "go together"),
        ({"name": "taylor", "steps": [0], "every": 2}, "give one"),
        ({"name": "taylor", "steps": [-1]}, "numbered from 0"),
        ({"name": "tailor"}, "Input should be"),
        ({"name": "taylor", "of": 20}, "`of` is given without `steps`"),
        ({"name": "taylor", "steps": [0, 20], "of": 20}, "`steps` has 20, and `of` = 20 steps end with 19"),
        ({"name": "taylor", "cost": 0.5}, "`cost` is given without `schedule`"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CacheSettings.model_validate(given)


def test_steps_that_a_call_does_not_have_are_refused() -> None:
    SamplingSettings.model_validate({"num_inference_steps": 8, "cache": {"name": "taylor", "steps": [0, 7]}})
    with pytest.raises(ValidationError, match=r"`cache\.steps` has 8, and the 8 steps"):
        SamplingSettings.model_validate({"num_inference_steps": 8, "cache": {"name": "taylor", "steps": [0, 8]}})


def test_steps_of_another_number_are_those_at_the_same_share_of_the_way() -> None:
    cache = CacheSettings(name="taylor", steps=[0, 5, 10], of=11)
    assert cache.computed(11) == {0, 5, 10}
    assert cache.computed(21) == {0, 10, 20}
    assert cache.computed(3) == {0, 1, 2}


FRONT = [
    {"cost": 0.6, "error": 0.01, "cache": {"name": "taylor", "order": 2, "steps": [0, 2, 3], "of": 4}},
    {"cost": 0.3, "error": 0.1, "cache": {"name": "deepcache", "order": 0, "steps": [0, 3], "of": 4}},
]


def test_of_a_schedule_the_best_that_is_cheap_enough_is_taken(tmp_path: Any) -> None:
    (tmp_path / "schedule.yaml").write_text(write_schedule({"model": "a/b"}, FRONT))
    config = tmp_path / "settings.yaml"
    config.write_text("num_inference_steps: 4\ncache: {schedule: schedule.yaml, cost: 0.7, tolerance: 0.5}\n")
    taken = load_settings(SamplingSettings, config)
    assert taken.cache == CacheSettings(name="taylor", order=2, steps=[0, 2, 3], of=4, tolerance=0.5)
    assert SamplingSettings.model_validate(taken.to_dict()) == taken
    cheaper = load_settings(SamplingSettings, config, ["cache.cost=0.4"])
    assert cheaper.cache == CacheSettings(name="deepcache", order=0, steps=[0, 3], of=4, tolerance=0.5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cost": 0.2}, r"`cost` is 0\.2, and .* has entries that cost 0\.30, 0\.60; raise it"),
        ({}, "`schedule` is given without `cost`"),
        ({"cost": 0.7, "order": 1}, "`schedule` is given with order, which it says itself"),
        ({"cost": 0.7, "schedule": "away.yaml"}, "cannot be read: No such file"),
        ({"cost": 0.7, "schedule": __file__}, "which is no file of `sdo schedule`"),
    ],
)
def test_a_schedule_that_cannot_be_taken_is_refused(given: dict[str, Any], said: str, tmp_path: Any) -> None:
    (tmp_path / "schedule.yaml").write_text(write_schedule({}, FRONT))
    with pytest.raises(ValidationError, match=said):
        CacheSettings.model_validate({"schedule": str(tmp_path / "schedule.yaml")} | given)


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        ({"name": "deepcache"}, "cache.name: 'deepcache' is for UNets of two levels or more"),
        ({"name": "first-block"}, "cache.name: 'first-block' is for transformers that diffusers has caches for"),
        ({"name": "modules", "modules": ["blocks"]}, "no module's whole name in a SD3Transformer2DModel matches"),
        ({"name": "modules", "modules": ["("]}, "is no regular expression"),
    ],
)
def test_a_model_that_cannot_have_it_is_refused(cache: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        choose_runner(stable_diffusion_3(), CacheSettings(**cache), None, 4)


def test_what_is_held_of_a_unet() -> None:
    unet = stable_diffusion().unet
    assert held_modules(unet, CacheSettings(name="taylor")) == [""]
    assert held_modules(unet, CacheSettings(name="deepcache")) == ["down_blocks.1", "mid_block", "up_blocks.0"]
    encoder = ["conv_in", "down_blocks.0", "down_blocks.1", "mid_block"]
    assert held_modules(unet, CacheSettings(name="faster-diffusion")) == encoder
    assert matching_modules(unet, ["mid_block", r"mid_block\.resnets", "conv_.*"]) == [
        "mid_block",
        *_convolutions(unet),
    ]


def _convolutions(unet: torch.nn.Module) -> list[str]:
    return [name for name, _ in unet.named_children() if name.startswith("conv_")]


@pytest.mark.parametrize(
    ("pipeline", "cache"),
    [
        ("FirstBlock, Flux", {"name": "first-block", "options": {"threshold": 10.0}}),
        ("TaylorSeer, Flux", {"name": "taylorseer", "options": {"cache_interval": 3, "disable_cache_before_step": 1}}),
        ("Mag, Flux", {"name": "mag-cache", "options": {"mag_ratios": [1.0] * 6, "threshold": 10.0}}),
        (
            "PyramidAttentionBroadcast, Flux",
            {
                "name": "pab",
                "options": {
                    "spatial_attention_block_skip_range": 2,
                    "spatial_attention_timestep_skip_range": [-1, 1001],
                    "spatial_attention_block_identifiers": ["blocks"],
                },
            },
        ),
    ],
)
def test_a_cache_of_diffusers_is_on(pipeline: str, cache: dict[str, Any]) -> None:
    pipe, call, _ = made(CACHES[pipeline])
    plain = pipe(**call())[0]
    assert choose_runner(pipe, CacheSettings(**cache), None, 6) is None
    assert cache_hooks(pipe.transformer)
    assert not torch.equal(pipe(**call())[0], plain)


def test_options_that_diffusers_does_not_have_are_refused() -> None:
    pipe, _, _ = made(CACHES["FirstBlock, Flux"])
    with pytest.raises(SettingsError, match=r"cache\.options: 'first-block' takes no limit; it takes threshold"):
        choose_runner(pipe, CacheSettings(name="first-block", options={"limit": 1}), None, 6)
    with pytest.raises(
        SettingsError, match=r"cache\.options: 'mag-cache' of a FluxTransformer2DModel cannot have them"
    ):
        choose_runner(pipe, CacheSettings(name="mag-cache"), None, 6)


def test_what_is_registered_is_drawn_as_its_recipe_says(tmp_path: Any) -> None:
    sampling = SamplingSettings(num_inference_steps=6, guidance_scale=3.0, cache=CacheSettings(name="taylor"))
    write_recipe(tmp_path, Recipe.of(sampling, "float32", 2))
    recipe = read_recipe(tmp_path)
    pipe, call = stable_diffusion(), sampling.pipeline_call(["a cat"])
    expected = draw(pipe, call, [seeded(1)], runner=runner_of(pipe, sampling))
    [served] = _images(pipe, vars(recipe))(generator=[seeded(1)], output_type="pil", **call)
    [plain] = _images(pipe, vars(recipe) | {"cache": None})(generator=[seeded(1)], output_type="pil", **call)
    assert served == picture(expected[0], "image") != plain
    with run_by(choose_runner(pipe, sampling.cache, None, 6), pipe, 6):
        assert torch.equal(pipe(generator=[seeded(1)], output_type="pt", **call).images, expected)
