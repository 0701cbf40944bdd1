"""What the graph holds: the activations of the kept steps, and nothing that grows with the number of steps."""

from typing import Any

import torch

from sdo_ray.backprop import BackpropPlan, differentiable_sample, make_plan
from sdo_ray.backprop.saved import saved_activations

from .tiny import seeded, stable_diffusion


def saved_bytes(pipe: Any, plan: BackpropPlan) -> int:
    """Bytes of the different storages that autograd saved for the backward pass, weights apart."""
    with saved_activations(pipe.unet, pipe.vae) as saved:
        steps = plan.num_steps
        images = differentiable_sample(pipe, plan, prompt="a cat", num_inference_steps=steps, generator=seeded())
    assert images.requires_grad
    return saved.bytes


def test_sdo_memory_does_not_grow_with_the_steps_and_full_grows_linearly() -> None:
    pipe = stable_diffusion()
    first, last = (lambda n: make_plan("sdo", n, draw="fixed", at=[0])), (lambda n: make_plan("draft", n))
    sizes = {n: (saved_bytes(pipe, first(n)), saved_bytes(pipe, last(n))) for n in (2, 4, 8, 16)}
    # 0-dim scalars of the schedule are saved along the linear path: some bytes a step, against megabytes.
    for kept_first, kept_last in sizes.values():
        assert kept_last == sizes[2][1]
        assert abs(kept_first - sizes[2][0]) < 0.001 * sizes[2][0]
    full = {n: saved_bytes(pipe, make_plan("full", n)) for n in (2, 4, 8)}
    per_step = (full[4] - full[2]) / 2
    assert per_step > 0.5 * (sizes[2][1] - saved_bytes_of_decoder(pipe))
    assert abs((full[8] - full[4]) / 4 - per_step) < 0.01 * per_step


def test_a_checkpointed_plan_keeps_no_activations_and_has_the_same_gradient() -> None:
    pipe = stable_diffusion()
    trained = [p for p in pipe.unet.parameters() if p.requires_grad]
    kept, again = (make_plan("full", 4, checkpoint=checkpoint) for checkpoint in (False, True))
    decoder = saved_bytes_of_decoder(pipe)
    assert saved_bytes(pipe, again) - decoder < 0.02 * (saved_bytes(pipe, kept) - decoder)
    gradients = []
    for plan in (kept, again):
        images = differentiable_sample(pipe, plan, prompt="a cat", num_inference_steps=4, generator=seeded())
        gradients.append(torch.autograd.grad(images.square().sum(), trained))
    assert max(g.abs().max() for g in gradients[0]) > 1e-3
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def saved_bytes_of_decoder(pipe: Any) -> int:
    """The decoder's share of the above."""
    z = torch.randn(1, 4, 8, 8).requires_grad_()
    with saved_activations(pipe.vae) as saved:
        pipe.vae.decode(z).sample.sum()
    return saved.bytes


def test_each_storage_is_counted_once_and_weights_are_not() -> None:
    layer = torch.nn.Linear(10, 20).requires_grad_(False)
    x = torch.randn(5, 10, requires_grad=True)
    with saved_activations(layer) as saved:
        y = layer(x.clone()).exp()
        assert saved.bytes == y.untyped_storage().nbytes() == 5 * 20 * 4
        z = y[:2] * y[3:]  # two views of what is there
    assert saved.bytes == 5 * 20 * 4
    saved.clear()
    assert saved.bytes == 0
    (gradient,) = torch.autograd.grad(z.sum(), x)
    assert gradient[2].abs().max() == 0 < gradient[0].abs().min()
