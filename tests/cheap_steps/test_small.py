"""The first steps are a smaller model's, the kept step never is, and a model that does not fit is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from sdo_ray.backprop import KeptCall, differentiable_sample, make_plan, run_by, surrogate
from sdo_ray.cheap_steps.choose import choose_runner, copies_of
from sdo_ray.cheap_steps.settings import CacheSettings, CopySettings
from sdo_ray.settings import SettingsError
from tests.backprop.tiny import assert_same, double, gradients, reward, seeded, stable_diffusion, trained

N = 8


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    pipe = stable_diffusion()
    pipe.unload_lora_weights()
    torch.manual_seed(5)
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config, block_out_channels=(4, 8))
    pipe.save_pretrained(directory := tmp_path_factory.mktemp("small"))
    return str(directory)


def call(**more: Any) -> dict[str, Any]:
    return {"prompt": "a cat", "guidance_scale": 3.0, "num_inference_steps": N, "generator": seeded(1)} | more


class FirstBy:
    """The first three steps by another network; what `until: 0.3` of 8 steps has to be."""

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network

    def sampling(self, _num_steps: int, _denoisers: Any) -> Any:
        return torch.no_grad()

    def __call__(self, step: int, _name: str, forward: Any, args: Any, kwargs: Any) -> Any:
        return (self._network if step < 3 else forward)(*args, **kwargs)

    exact = __call__


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_first_steps_are_the_smaller_models(small: str, dtype: Any) -> None:
    pipe = stable_diffusion()
    runner = choose_runner(pipe, None, CopySettings(small=small, until=0.3, dtype=dtype), N)
    _, network = copies_of(runner)
    with run_by(runner, pipe, N):
        got = pipe(**call(), output_type="pt").images
    with run_by(FirstBy(copy.deepcopy(network).float()), pipe, N):
        expected = pipe(**call(), output_type="pt").images
    plain = pipe(**call(), output_type="pt").images
    assert (got - expected).abs().max() < 0.1 * (plain - expected).abs().max()
    if dtype is None:
        assert (got - expected).abs().max() < 1e-5


@pytest.mark.parametrize("k", [1, 5])
def test_the_kept_step_is_the_denoisers_own(small: str, k: int) -> None:
    pipe = double(stable_diffusion())
    bare = copy.deepcopy(pipe.unet)
    runner = choose_runner(pipe, CacheSettings(name="taylor", every=2), CopySettings(small=small), N)
    plan, calls = make_plan("sdo", N, draw="fixed", at=[k]), list[KeptCall]()
    got = gradients(pipe, differentiable_sample(pipe, plan, runner=runner, **call()))
    reward(differentiable_sample(pipe, plan, runner=runner, elsewhere=calls, **call())).backward()
    [kept] = calls
    direct = surrogate(bare, kept.args, kept.kwargs, kept.gradients())
    assert_same(got, list(torch.autograd.grad(direct, [p for p in bare.parameters() if p.requires_grad])))
    assert len(got) == len(trained(pipe))


def test_a_model_of_other_latents_is_refused(small: str, tmp_path: Path) -> None:
    pipe = stable_diffusion()
    pipe.unload_lora_weights()
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config, in_channels=5)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"fast_copy\.small: the unet of .* has in_channels = 5, and that of"):
        choose_runner(stable_diffusion(), None, CopySettings(small=str(tmp_path)), N)
