"""What settings switch on in a loaded pipeline is on, and changes images and gradients by rounding alone."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCosmos, AutoencoderKLLTXVideo, AutoencoderKLMagvit

from sdo_ray.backprop.decoder import decoded_again
from sdo_ray.rollout.kept_graph import LearnedSamplingSettings, choose_kept_graph
from sdo_ray.rollout.objective import Cotangents, backpropagate
from sdo_ray.rollout.preparation import prepare, set_decoding
from sdo_ray.rollout.sampling import draw, noise, plan_of, sample
from sdo_ray.rollout.settings import Decode, LearningSamplerSettings, PlanSettings, SamplerSettings, SamplingSettings
from sdo_ray.settings import SettingsError
from sdo_ray.sizing.alive import Alive
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases import CASES
from tests.backprop.tiny import stable_diffusion, trained

SIZE = {"height": 64, "width": 64}
PLAN = PlanSettings(name="sdo", options={"draw": "fixed", "at": [1]})


def how(decode: Decode = "whole") -> SamplingSettings:
    return SamplingSettings(num_inference_steps=2, guidance_scale=2.0, decode=decode, options=SIZE)


def learned(pipeline: Any, sampling: SamplingSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and gradient."""
    plan = plan_of(pipeline, sampling, PLAN)
    parameters = {str(i): p for i, p in enumerate(trained(pipeline))}
    call = sampling.pipeline_call(["a", "b"])
    trajectory = sample(pipeline, call, noise(0, [0, 1]), plan, kept_graph="recompute")
    v = Cotangents(torch.linspace(-1, 1, trajectory.samples.numel()).view(trajectory.samples.shape))
    found = backpropagate(trajectory, v, parameters, {"unet": pipeline.unet})
    return trajectory.samples.detach(), torch.cat([g.flatten() for g in found.parameters.values()])


@pytest.mark.parametrize("decode", ["slices", "tiles"])
def test_decoding_in_parts(decode: Decode) -> None:
    pipeline: Any = stable_diffusion()
    images, gradient = learned(pipeline, how())
    prepare(pipeline, how(decode), SamplerSettings())
    in_parts, same = learned(pipeline, how(decode))
    # Tiles know nothing of what is beyond them, and these networks are random.
    assert (in_parts - images).abs().mean() < (1e-6 if decode == "slices" else 0.05)
    assert torch.cosine_similarity(same, gradient, dim=0) > (0.99999 if decode == "slices" else 0.9)
    assert torch.equal(in_parts, draw(pipeline, how(decode).pipeline_call(["a", "b"]), noise(0, [0, 1])))


def test_tiles_are_held_one_at_a_time() -> None:
    vae = stable_diffusion().vae
    most = []
    for _ in range(2):
        z = torch.randn(1, 4, 32, 32).requires_grad_()
        with decoded_again(vae):
            x = vae.decode(z).sample
        with Alive() as alive:
            x.backward(torch.ones_like(x))
        most.append(alive.most)
        vae.enable_tiling()
    assert most[1] < 0.5 * most[0]


def test_the_gradient_through_tiles_is_autograd_s() -> None:
    pipeline: Any = stable_diffusion()
    set_decoding(pipeline, "tiles")
    _, gradient = learned(pipeline, how("tiles"))
    plan = plan_of(pipeline, how("tiles"), PLAN)
    trajectory = sample(pipeline, how().pipeline_call(["a", "b"]), noise(0, [0, 1]), plan)
    v = torch.linspace(-1, 1, trajectory.samples.numel()).view(trajectory.samples.shape)
    expected = torch.autograd.grad(trajectory.samples, trained(pipeline), v)
    torch.testing.assert_close(gradient, torch.cat([g.flatten() for g in expected]), rtol=1e-3, atol=1e-5)


def test_tiles_are_made_again_in_the_types_of_the_decoding() -> None:
    """As pipelines do with autoencoders that overflow in float16."""
    vae = stable_diffusion().vae.half().requires_grad_(False)
    vae.enable_tiling()
    z = torch.randn(1, 4, 32, 32).requires_grad_()
    with decoded_again(vae):
        vae.float()
        x = vae.decode(z).sample
        vae.half()
    v = torch.linspace(-1, 1, x.numel()).view(x.shape)
    [gradient] = torch.autograd.grad(x, z, v)
    [expected] = torch.autograd.grad(vae.float().decode(z).sample, z, v)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_an_autoencoder_without_it_is_refused() -> None:
    class Bare:
        def __init__(self) -> None:
            self.components = {"vae": torch.nn.Linear(1, 1)}

    with pytest.raises(SettingsError, match=r"sampling.decode: got 'tiles', which no autoencoder of a Bare has"):
        set_decoding(Bare(), "tiles")


def test_compiled_denoisers_and_channels_last() -> None:
    pipeline: Any = stable_diffusion()
    images, gradient = learned(pipeline, how())
    with torch.compiler.set_stance("force_eager"):  # compiling itself takes minutes
        prepare(pipeline, how(), SamplerSettings(compile=True, channels_last=True))
        compiled, same = learned(pipeline, how())
    assert any(vars(part).get("_compiled_call_impl") is not None for part in pipeline.unet.modules())
    assert pipeline.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(compiled, images, rtol=1e-3, atol=1e-4)
    assert (same - gradient).norm() < 1e-3 * gradient.norm()


def test_frames_beside_a_decoder_whose_graph_is_kept_are_refused() -> None:
    pipeline = assemble("WanPipeline", CASES["Wan"].parts)
    kept = LearnedSamplingSettings(decode="frames", kept_graph="retain")
    told = (
        r"^sampling\.decode: got 'frames' beside kept_graph: retain; a WanPipeline decodes by frames in any case.*whole"
    )
    with pytest.raises(SettingsError, match=told):
        choose_kept_graph(pipeline, kept, PLAN, LearningSamplerSettings())
    again = LearnedSamplingSettings(decode="frames", kept_graph="recompute")
    assert choose_kept_graph(pipeline, again, PLAN, LearningSamplerSettings()) == "recompute"
    read = assemble("LTXPipeline", CASES["LTX"].parts)  # whose decoder reads the switch in both passes
    assert choose_kept_graph(read, kept, PLAN, LearningSamplerSettings()) == "retain"


class OfVideos:
    """A pipeline with one autoencoder, of which only the class counts."""

    def __init__(self, kind: type[torch.nn.Module]) -> None:
        vae: Any = kind.__new__(kind)
        torch.nn.Module.__init__(vae)
        vae.use_framewise_decoding = False
        self.vae, self.components = vae, {"vae": vae}


def test_frames_are_refused_where_the_switch_is_never_looked_at() -> None:
    can: Any = OfVideos(AutoencoderKLLTXVideo)
    set_decoding(can, "frames")
    assert can.vae.use_framewise_decoding
    for kind in (AutoencoderKLCosmos, AutoencoderKLMagvit):  # which have it and only set it
        cannot: Any = OfVideos(kind)
        with pytest.raises(SettingsError, match="got 'frames', which no autoencoder of a OfVideos has"):
            set_decoding(cannot, "frames")
