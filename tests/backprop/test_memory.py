"""What the graph holds: the activations of the kept steps, and nothing that grows with the number of steps."""

from typing import Any

import torch

from sdo_ray.backprop import BackpropPlan, differentiable_sample, make_plan

from .tiny import seeded, stable_diffusion


def saved_bytes(pipe: Any, plan: BackpropPlan) -> int:
    """Bytes of the different storages that autograd saved for the backward pass, weights apart."""
    weights = {p.untyped_storage().data_ptr() for m in (pipe.unet, pipe.vae) for p in m.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            saved[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        steps = plan.num_steps
        images = differentiable_sample(pipe, plan, prompt="a cat", num_inference_steps=steps, generator=seeded())
    assert images.requires_grad
    return sum(x.untyped_storage().nbytes() for x in saved.values())


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
    saved: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    z = torch.randn(1, 4, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        pipe.vae.decode(z).sample.sum()
    return sum(saved.values())
