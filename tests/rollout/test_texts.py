"""Texts that are encoded once, on real pipelines: one text encoder, two, and two of different kinds (CLIP and T5)."""

from collections import Counter
from typing import Any

import pytest
import torch

from sdo_ray.rollout.preparation import prepare
from sdo_ray.rollout.sampling import draw, noise
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings
from sdo_ray.rollout.texts import EncodedOnce, offload_text_encoders
from sdo_ray.settings import SettingsError
from tests.backprop.matrix.assemble import assemble, inputs
from tests.backprop.matrix.cases import CASES

NAMES = ["StableDiffusion", "StableDiffusionXL", "Flux"]
HOW = SamplingSettings(num_inference_steps=2, guidance_scale=3.0, options={"height": 32, "width": 32})
OFFLOAD = SamplerSettings(text_encoders="offload")


def pipeline(name: str) -> Any:
    made = assemble(f"{name}Pipeline", CASES[name].parts)
    made.set_progress_bar_config(disable=True)
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return made


def drawn(made: Any, *prompts: str) -> torch.Tensor:
    return draw(made, HOW.pipeline_call(prompts), noise(0, range(len(prompts))))


def texts(made: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in made.components.items() if name.startswith("text_encoder") and part}


def counted(made: Any) -> Counter[str]:
    """Rows that each text encoder is really called with, from now on."""
    rows = Counter[str]()
    for name, module in texts(made).items():

        def count(_: Any, args: Any, kwargs: Any, __: Any, name: str = name) -> None:
            rows[name] += len((*args, *kwargs.values())[0])

        module.register_forward_hook(count, with_kwargs=True)
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_plain_call_s_and_each_prompt_is_encoded_once(name: str) -> None:
    plain, made = pipeline(name), pipeline(name)
    # Of batches of one, to the bit; larger ones are summed in another order.
    alone = {prompt: drawn(plain, prompt) for prompt in "abc"}
    prepare(made, HOW, OFFLOAD)
    for prompt, image in alone.items():
        assert torch.equal(drawn(made, prompt), image)
        assert torch.equal(drawn(made, prompt), image)
    torch.testing.assert_close(drawn(made, "c", "a"), drawn(plain, "c", "a"), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_s_embedding_is_the_same_bits_in_every_batch_and_made_once(name: str) -> None:
    made = pipeline(name)
    prepare(made, HOW, OFFLOAD)
    rows = counted(made)

    def embeddings(*prompts: str) -> list[torch.Tensor]:
        given: dict[str, Any] = {"prompt": list(prompts), "device": torch.device("cpu"), "num_images_per_prompt": 1}
        if name == "StableDiffusion":
            given["do_classifier_free_guidance"] = True
        found = made.encode_prompt(**given)
        # Without those of the empty prompt, and FLUX's positions.
        return [x for x in found if x is not None and len(x) == len(prompts) and not torch.equal(x[0], x[1])]

    one, other = embeddings("a", "b", "a"), embeddings("c", "b")
    assert len(one) == len(other) == (1 if name == "StableDiffusion" else 2)
    for x, y in zip(one, other, strict=True):
        assert torch.equal(x[0], x[2])
        assert torch.equal(x[1], y[1])
    # Three prompts, and the empty one for guidance.
    assert set(rows) == set(texts(made))
    assert set(rows.values()) == {4 if name == "StableDiffusion" else 3}  # SDXL has zeros for the empty one


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["QwenImage", "HiDreamImage", "Lumina2", "HunyuanVideo", "Sana", "Flux2", "AuraFlow", "ZImage", "CogView4"],
)
def test_text_encoders_that_are_language_models(name: str) -> None:
    def latents(made: Any) -> torch.Tensor:
        call = inputs(made, CASES[name].call) | {"output_type": "latent", "prompt": ["ab"]}
        with torch.no_grad():
            return torch.as_tensor(made(generator=[torch.Generator().manual_seed(0)], **call)[0])

    made = pipeline(name)
    plain = latents(made)
    prepare(made, HOW, OFFLOAD)
    rows = counted(made)
    assert torch.equal(latents(made), plain)
    assert set(rows) == set(texts(made))
    once = Counter(rows)
    assert torch.equal(latents(made), plain)
    assert rows == once


def test_what_was_not_asked_for_the_longest_time_is_forgotten_and_made_again() -> None:
    made = pipeline("StableDiffusion")
    encoder = made.text_encoder
    known = EncodedOnce(encoder, torch.device("cpu"), limit=0)
    ids = torch.tensor([[5, 6, 7, 8]])
    row = known(encoder, (ids,), {})
    size = sum(x.numel() * x.element_size() for x in row.values())
    rows = counted(made)
    known = EncodedOnce(encoder, torch.device("cpu"), limit=2 * size)
    for first in (1, 2, 1, 3, 1, 2):  # 3 is one too many, and 2 the one that goes
        known(encoder, (ids + first,), {})
    assert rows["text_encoder"] == 4
    assert known._size <= 2 * size
    assert torch.equal(known(encoder, (ids,), {})[0], row[0])


def test_a_call_that_is_not_of_rows_is_made_as_it_is() -> None:
    class TokensFirst(torch.nn.Module):
        def forward(self, ids: torch.Tensor, scale: Any = 1.0) -> torch.Tensor:
            return scale * ids.T.float()[..., None]

    encoder = TokensFirst()
    known = EncodedOnce(encoder, torch.device("cpu"), limit=1000)
    ids = torch.arange(6).view(2, 3)
    assert torch.equal(known(encoder, (ids,), {}), encoder(ids))
    assert torch.equal(known(encoder, (ids, torch.tensor(2.0)), {}), encoder(ids, 2.0))
    assert not known._known


def test_an_encoder_that_is_trained_is_refused() -> None:
    made = pipeline("StableDiffusionXL")
    made.text_encoder_2.requires_grad_(True)
    with pytest.raises(SettingsError, match=r"samplers.text_encoders: got 'offload', but text_encoder_2 is trained"):
        offload_text_encoders(made)
