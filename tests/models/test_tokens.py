"""How much of a prompt a model reads."""

from pathlib import Path

import pytest
import torch

from sdo_ray.models.load import load_pipeline
from sdo_ray.models.tokens import said_of, tokenizers_of, what_is_cut
from sdo_ray.rollout.settings import SamplingSettings


def test_what_is_cut_changes_nothing_in_the_image(tiny_base: Path) -> None:
    """The tiny tokenizer reads 8 tokens: two around six letters."""
    pipeline = load_pipeline(str(tiny_base))

    def image(prompt: str) -> torch.Tensor:
        seed = torch.Generator().manual_seed(0)
        return pipeline(prompt, num_inference_steps=1, generator=seed, output_type="pt").images

    read, longer, other = "a b c d e f", "a b c d e f g h", "a b c d e f x y z"
    assert torch.equal(image(longer), image(other))
    assert not torch.equal(image(read), image("a b c d e"))
    for tokenizers in (tokenizers_of(str(tiny_base)), pipeline.components):
        assert what_is_cut(tokenizers, [read]) is None
        said = what_is_cut(tokenizers, [read, longer, other])
        assert said is not None
        assert said.startswith("2 of 3 are longer than the 8 tokens that the model reads; of the longest, with 11, ")
        assert said.endswith("it does not see 'x y z'")


@pytest.mark.parametrize(("words", "cut"), [(20, False), (40, True)])
def test_the_embedded_model(words: int, cut: bool) -> None:
    assert bool(what_is_cut(tokenizers_of("zoo://emoji"), ["cat " * words])) == cut


def test_each_setting_has_its_line(tiny_base: Path) -> None:
    sampling = SamplingSettings(options={"negative_prompt": "a b c d e f g h", "negative_prompt_2": "a", "height": 8})
    given = {"prompts.heldout": ["a"], **sampling.negative_prompts}
    assert given.keys() == {f"sampling.options.negative_prompt{end}" for end in ("", "_2")} | {"prompts.heldout"}
    [line] = said_of(str(tiny_base), given)
    assert line.startswith("sampling.options.negative_prompt: 1 of 1 are longer than the 8 tokens")
