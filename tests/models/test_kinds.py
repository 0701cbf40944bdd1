"""Every registered kind of trained parameters, by its default settings; and nobody asks which one it is."""

import ast
import re
from pathlib import Path

import pytest
import torch

from sdo_ray.models.adapter_file import load_adapter
from sdo_ray.models.export import ADAPTER, MODEL, export_model, product
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.parameters import set_parameters, trained_parameters
from sdo_ray.models.policy import attach, initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.models.trained.registry import KINDS
from tests.models.draws import draw

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_draws_the_same_attached_merged_and_handed_out(tiny_base: Path, tmp_path: Path, kind: str) -> None:
    model, pipeline = ModelSettings(base=str(tiny_base), train=kind), load_pipeline(str(tiny_base))
    before, layers = draw(pipeline), {name for name, _ in pipeline.unet.named_parameters()}
    trained = attach(pipeline.components, model)
    initial = initial_policy(model, 0)
    assert list(initial) == list(trained_parameters(trained))
    set_parameters(trained, initial)
    assert torch.equal(draw(pipeline), before)

    noise = torch.Generator().manual_seed(1)
    weights = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=noise) for name, tensor in initial.items()}
    set_parameters(trained, weights)
    attached = draw(pipeline)
    assert (attached - before).abs().max() > 1e-3

    export_model(tmp_path, model, weights)
    if product(model) == ADAPTER:
        handed_out = load_pipeline(str(tiny_base))
        load_adapter(handed_out, str(tmp_path / ADAPTER))
        assert torch.equal(draw(handed_out), attached)

    model.kind.merge(trained)
    assert {name for name, _ in pipeline.unet.named_parameters()} == layers
    # A product of weights and scales is rounded elsewhere than one of outputs and scales.
    torch.testing.assert_close(draw(pipeline), attached, rtol=0, atol=1e-4)
    if product(model) == MODEL:
        assert torch.equal(draw(load_pipeline(str(tmp_path / MODEL))), draw(pipeline))


@pytest.mark.parametrize("kind", KINDS)
def test_merging_what_has_not_learned_gives_the_base_model(tiny_base: Path, kind: str) -> None:
    model, pipeline = ModelSettings(base=str(tiny_base), train=kind), load_pipeline(str(tiny_base))
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    trained = attach(pipeline.components, model)
    set_parameters(trained, initial_policy(model, 0))
    model.kind.merge(trained)
    after = pipeline.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"train\n") as refused:
        ModelSettings.model_validate({"base": "zoo://emoji", "train": "adaptor"})
    assert all(repr(kind) in str(refused.value) for kind in KINDS)


def test_nothing_outside_a_kind_asks_which_kind_it_is() -> None:
    """No comparison with `model.train`, no `model.lora`, no import of one kind: all goes through the registry."""
    inside, settings = REPOSITORY / "sdo_ray/models/trained", REPOSITORY / "sdo_ray/models/settings.py"
    of_lora_alone = REPOSITORY / "sdo_ray/notebook/aligner.py"
    wrong = []
    for top in ("sdo_ray", "pipelines"):
        for file in sorted((REPOSITORY / top).rglob("*.py")):
            if file.is_relative_to(inside) or file in (settings, of_lora_alone):
                continue
            code = file.read_text()
            if re.search(rf"models\.trained(\.| import )({'|'.join(KINDS)})\b", code):
                wrong.append(f"{file}: imports one kind")
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Compare | ast.Match) and re.search(r"\bmodel\.train\b", ast.unparse(node)):
                    wrong.append(f"{file}:{node.lineno}: asks for model.train")
                if isinstance(node, ast.Attribute) and re.search(rf"\bmodel\.({'|'.join(KINDS)})$", ast.unparse(node)):
                    wrong.append(f"{file}:{node.lineno}: reads {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)
