"""Two real processes hold half of a model each, before there is an engine, and together all of it."""

from pathlib import Path

import deepspeed
import torch
import torch.multiprocessing

from sdo_ray.models.policy import initial_policy
from sdo_ray.models.settings import ModelSettings
from sdo_ray.training.modules import Denoisers
from sdo_ray.training.sharded import shard
from tests.training.test_engine import group

CONFIG = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3}}


def held(module: torch.nn.Module) -> int:
    """Bytes of parameters that are here."""
    return sum(x.numel() * x.element_size() for p in module.parameters() for x in (p, getattr(p, "ds_tensor", p[:0])))


def work(rank: int, directory: str, model: ModelSettings) -> None:
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = {}
    module = Denoisers(model, initial_policy(model, 0))
    whole, values = held(module), {name: p.detach().clone() for name, p in module.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with group(directory, "group", rank, 2):
        shard(module, CONFIG)
        assert whole / 2 <= held(module) < 0.51 * whole
        for name, parameter in module.named_parameters():
            assert parameter.requires_grad == ("lora" in name)
            with deepspeed.zero.GatheredParameters([parameter]):
                assert torch.equal(parameter, values[name])
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, buffers[name])
    Path(directory, f"done-{rank}").touch()


def test_each_worker_holds_its_share(tiny_base: Path, tmp_path: Path) -> None:
    model = ModelSettings.model_validate({"base": str(tiny_base), "lora": {"rank": 2, "targets": ["to_q"]}})
    torch.multiprocessing.spawn(work, (str(tmp_path), model), nprocs=2)
    assert len(list(tmp_path.glob("done-*"))) == 2
