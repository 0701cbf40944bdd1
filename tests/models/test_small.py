"""Stand-ins for large models can be called as these are."""

from pathlib import Path

import torch
import transformers

from sdo_ray.dry_batch.calls import stand_in
from sdo_ray.models.load import load_pipeline
from tests.backprop.matrix.assemble import assemble
from tests.backprop.matrix.cases.case import tiny
from tests.backprop.matrix.text import WIDTH

DEEP = 30


def test_a_pipeline_that_reads_layers_in_the_middle_of_its_text_encoder_finds_them(tmp_path: Path) -> None:
    pipeline = assemble(
        "Flux2KleinPipeline", {"transformer": tiny("Flux2Transformer2DModel", joint_attention_dim=3 * WIDTH)}
    )
    config = pipeline.text_encoder.config.to_dict() | {"num_hidden_layers": DEEP, "layer_types": None}
    pipeline.text_encoder = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**config))
    pipeline.save_pretrained(tmp_path / "base")
    small = load_pipeline(stand_in(str(tmp_path / "base"), tmp_path))
    layers = small.text_encoder.config
    assert (layers.num_hidden_layers, layers.num_attention_heads) == (27, 1)
    with torch.no_grad():
        embeds, _ = small.encode_prompt("a cat")
    assert embeds.shape[-1] == 3 * WIDTH
