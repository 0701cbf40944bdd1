"""The optimizer's state as whole tensors by parameter name, whatever ZeRO shards it into and over how many workers.

Key of the optimizer's state, `exp_avg` say -> parameter name -> tensor. `step`, the number of steps, is of no shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed

State = dict[str, dict[str, torch.Tensor]]

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each weight."""


def masters(engine: Any) -> list[torch.Tensor]:
    """This worker's share of the float32 weights as the optimizer steps them: flat under ZeRO."""
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    if isinstance(engine.optimizer, BF16_Optimizer):  # of stage 1, where nothing is offloaded
        own: list[torch.Tensor] = engine.optimizer.fp32_groups_flat_partition
        return own
    match engine.zero_optimization_stage():
        case 0:
            return list(engine.module.named().values())
        case 3:
            found: list[torch.Tensor] = engine.optimizer.fp32_partitioned_groups_flat
        case _:
            found = engine.optimizer.single_partition_of_fp32_groups
    return found


def gather_state(engine: Any) -> State:
    """The whole state on the CPU of the first worker, for the others nothing; to be called by all workers.

    One parameter is gathered at a time. Empty before the first step.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    first, parameters = torch.distributed.get_rank() == 0, engine.module.named()
    if not engine.zero_optimization_stage():
        return _replicated(engine.optimizer, parameters) if first else {}
    kept = engine.optimizer.optimizer.state
    if not kept:
        return {}
    steps = next(iter(kept.values()))["step"]
    state: State = {"step": {name: steps.to("cpu", copy=True) for name in parameters}} if first else {}
    for key in MOMENTS:
        for name, parameter in parameters.items():
            whole = safe_get_full_optimizer_state(parameter, key)
            if first:
                state.setdefault(key, {})[name] = whole.to("cpu", copy=True)
    return state


def load_state(engine: Any, weights: Mapping[str, torch.Tensor], state: State) -> None:
    """Put weights, and what `gather_state` returned, into an engine; to be called by all workers with the same.

    Args:
        engine: fresh, with any number of workers.
        weights: parameter name -> float32.
        state: of the optimizer; empty before its first step.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    if not engine.zero_optimization_stage():
        _load_replicated(engine.optimizer, engine.module.named(), weights, state)
        return
    zero, sharded = engine.optimizer, engine.zero_optimization_stage() == 3
    for flat in masters(engine) if state else []:
        step = next(iter(state["step"].values())).to(flat.device, copy=True)
        zero.optimizer.state[flat] = {"step": step} | {key: torch.zeros_like(flat) for key in MOMENTS}
    if state and not sharded:
        zero._lazy_init_hp_params_optimizer_state()  # else at the first step
    for name, parameter in engine.module.named().items():
        with GatheredParameters([parameter], modifier_rank=0, enabled=sharded):
            parameter.data.copy_(weights[name])
        put = _set_share if sharded else _set_whole
        put(parameter, None, weights[name])
        for key in MOMENTS if state else ():
            put(parameter, key, state[key][name])


def _replicated(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]) -> State:
    """Of an optimizer that is the same on all workers."""
    state: State = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state[parameter].items():
            state.setdefault(key, {})[name] = torch.as_tensor(value).to("cpu", copy=True)
    return state


@torch.no_grad()
def _load_replicated(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    weights: Mapping[str, torch.Tensor],
    state: State,
) -> None:
    names = {parameter: name for name, parameter in parameters.items()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    # What is a whole number in it counts steps, and is not a tensor.
    loaded = {
        i: {
            key: value if value.dim() or value.is_floating_point() else int(value)
            for key, tensors in state.items()
            if (value := tensors.get(name)) is not None
        }
        for i, name in enumerate(order)
    }
    optimizer.load_state_dict({"state": loaded, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


def _set_whole(parameter: torch.nn.Parameter, key: str | None, value: torch.Tensor) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    if key is None:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, key)


def _set_share(parameter: Any, key: str | None, value: torch.Tensor) -> None:
    """The same under ZeRO-3, whose own call for it takes no parameter that the workers do not divide."""
    from deepspeed.utils import safe_set_local_fp32_param, safe_set_local_optimizer_state

    size, workers = parameter.ds_tensor.numel(), torch.distributed.get_world_size()
    padded = torch.nn.functional.pad(value.flatten(), (0, size * workers - value.numel()))
    share = padded.narrow(0, size * torch.distributed.get_rank(), size)
    if key is None:
        safe_set_local_fp32_param(parameter, share)
    else:
        safe_set_local_optimizer_state(parameter, share, key)
