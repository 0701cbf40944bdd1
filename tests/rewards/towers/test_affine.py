"""Aesthetic heads at their true sizes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from rewards.towers.affine import compose

V2 = [f"layers.{number}" for number in (0, 2, 4, 6, 7)]


def published(places, sizes, between=nn.Dropout):
    """The head as its authors have it: linear layers at these places of a sequence, dropouts or others between."""
    linear = iter([nn.Linear(a, b) for a, b in pairwise(sizes)])
    return nn.Sequential(*(next(linear) if i in places else between() for i in range(max(places) + 1))).eval()


@pytest.mark.parametrize(
    ("prefix", "places", "width"), [("layers", (0, 2, 4, 6, 7), 768), ("scoring_head", (0, 2, 4, 6, 8), 1152)]
)
def test_one_vector_says_what_the_layers_say(prefix, places, width):
    network = published(places, (width, 1024, 128, 64, 16, 1))
    tensors = {f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()}
    head = compose(tensors, [f"{prefix}.{place}" for place in places], "a head")
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(head(x), network(x)[:, 0], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=f"for {width} features, and its network gives 512"):
        head(torch.zeros(1, 512))


def test_the_variant_with_activations_is_refused_by_its_keys():
    network = published((0, 3, 6, 9, 11), (8, 7, 6, 5, 4, 1), nn.ReLU)
    tensors = {f"layers.{name}": tensor for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"no checkpoint of v2: 6 keys are missing \(layers.2.bias"):
        compose(tensors, V2, "v2")


def test_layers_that_do_not_fit_are_refused():
    tensors = {
        "a.weight": torch.zeros(4, 8),
        "a.bias": torch.zeros(4),
        "b.weight": torch.zeros(1, 5),
        "b.bias": torch.zeros(1),
    }
    with pytest.raises(ValueError, match=r"\[1, 5\] does not follow \[4, 8\]"):
        compose(tensors, ["a", "b"], "a head")
    with pytest.raises(ValueError, match="gives 4 numbers"):
        compose({name: tensors[name] for name in ("a.weight", "a.bias")}, ["a"], "a head")
