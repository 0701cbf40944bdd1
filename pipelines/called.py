"""What jobs that try no whole batch beforehand look at: how the model will be called, and with which texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdo_ray.dry_batch.options import check_options_by_a_call
from sdo_ray.models.tokens import said_of
from sdo_ray.prompts.inputs import Row
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import under


def check_called(
    name: str,
    base: str,
    sampling: SamplingSettings,
    batch_size: int,
    rows: Sequence[Row],
    prompts: Mapping[str, Sequence[str]],
) -> None:
    """Say which texts the model reads in part, and refuse options with which its call fails.

    Args:
        name: the run's.
        base: the model's reference.
        sampling: how it is called.
        batch_size: prompts of a call.
        rows: what comes beside prompts; may be empty.
        prompts: setting -> those that it names; negative ones are added.

    Raises:
        SettingsError: of the options, or the model's tokenizers cannot be read.
    """
    with under("model"):
        said = said_of(base, {**prompts, **sampling.negative_prompts})
    for line in said:
        print(f"{name}: {line}", flush=True)
    check_options_by_a_call(base, sampling.with_example_of(rows), batch_size)
