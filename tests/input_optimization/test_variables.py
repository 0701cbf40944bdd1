"""What is optimised: where it starts, that it may be put back unchanged, and where it may go."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sdo_ray.input_optimization.variables import LEAST_GUIDANCE, VARIABLES, GuidanceScale, Latents
from sdo_ray.models.load import load_pipeline


@pytest.fixture(scope="module")
def pipeline(tiny_base: Path) -> Any:
    return load_pipeline(str(tiny_base))


def call(rows: int) -> dict[str, Any]:
    return {
        "prompt": ["a cat", "dogs"][:rows],
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "generator": [torch.Generator().manual_seed(row) for row in range(rows)],
    }


def drawn(pipeline: Any, rows: int, **more: Any) -> torch.Tensor:
    return pipeline(**call(rows) | more, output_type="pt").images


@pytest.mark.parametrize("name", VARIABLES)
def test_the_start_draws_what_the_call_draws(pipeline: Any, name: str) -> None:
    rows = 1 if name == "guidance_scale" else 2
    variable = VARIABLES[name](VARIABLES[name].start(pipeline, call(rows)))
    assert len(variable.values) == rows
    with torch.no_grad(), variable.given(pipeline) as given:
        assert torch.equal(drawn(pipeline, rows, **given), drawn(pipeline, rows))
    variable.values[0].data *= 1.5
    with torch.no_grad(), variable.given(pipeline) as given:
        moved = drawn(pipeline, rows, **given)
    changed = (moved - drawn(pipeline, rows)).abs().flatten(1).amax(1) > 1e-6
    assert changed.tolist() == [True, False][:rows], "each row's own"


def moved(change: float, **rules: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a row of two starts, and where it is after moving by `change` times its norm in a random direction."""
    generator = torch.Generator().manual_seed(0)
    latents = Latents(torch.randn(2, 4, 8, 8, generator=generator), **rules)
    step = torch.randn(4, 8, 8, generator=generator)
    latents.values[0].data += change * latents.initial[0].norm() / step.norm() * step
    latents.project()
    assert torch.equal(latents.values[1], latents.initial[1]), "a row that has not moved stays"
    return latents.initial[0], latents.values[0].detach()


def test_keep_norm_stays_on_the_sphere() -> None:
    start, end = moved(0.5, keep_norm=True)
    assert end.norm().item() == pytest.approx(start.norm().item(), rel=1e-5)
    assert 0.3 < ((end - start).norm() / start.norm()).item() < 0.5


@pytest.mark.parametrize("keep_norm", [False, True])
def test_max_change_is_a_leash(keep_norm: bool) -> None:
    start, end = moved(0.1, keep_norm=keep_norm, max_change=0.3)
    free_start, free_end = moved(0.1, keep_norm=keep_norm)
    assert torch.equal(start, free_start)
    assert torch.equal(end, free_end), "within reach nothing happens"
    start, end = moved(2.0, keep_norm=keep_norm, max_change=0.3)
    assert ((end - start).norm() / start.norm()).item() == pytest.approx(0.3, rel=1e-4)
    if keep_norm:
        assert end.norm().item() == pytest.approx(start.norm().item(), rel=1e-5)


def test_a_leash_on_the_sphere_leads_to_the_nearest_point() -> None:
    """In the plane: 90 degrees away, chord 1 allowed, which is 60 degrees."""
    latents = Latents(torch.tensor([[2.0, 0.0]]), keep_norm=True, max_change=1.0)
    latents.values[0].data = torch.tensor([0.0, 5.0])
    latents.project()
    torch.testing.assert_close(latents.values[0].detach(), torch.tensor([1.0, 3.0**0.5]))


def test_guidance_stays_on() -> None:
    scale = GuidanceScale(torch.tensor([3.0]))
    scale.values[0].data -= 10
    scale.project()
    assert scale.values[0].item() == pytest.approx(LEAST_GUIDANCE)
