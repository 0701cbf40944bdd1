"""Merged adapters are peft's own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from rewards.towers.adapters import merged


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 3), nn.Linear(3, 4, bias=False)

    def forward(self, x):
        return self.b(self.a(x))


@pytest.mark.parametrize("stabilised", [False, True])
def test_a_merged_checkpoint_is_the_network_with_its_adapters(stabilised):
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, lora_alpha=3, target_modules=["a"], use_rslora=stabilised, init_lora_weights=False, lora_dropout=0.0
    )
    adapted = get_peft_model(Two(), config)
    x = torch.randn(6, 5)
    expected = adapted(x)
    plain = Two()
    plain.load_state_dict(merged(adapted.state_dict(), {"lora_alpha": 3, "use_rslora": stabilised}), strict=True)
    torch.testing.assert_close(plain(x), expected)


def test_half_an_adapter_is_refused():
    tensors = {"base_model.model.a.weight": torch.ones(3, 5), "base_model.model.a.lora_A.weight": torch.ones(2, 5)}
    with pytest.raises(ValueError, match="of 'a' the weight or half of the adapter is missing"):
        merged(tensors, {"lora_alpha": 3})
