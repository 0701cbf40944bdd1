"""All that is checked before an alignment starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipelines.run import check_run, known_outcome
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.align_texts import said_of_prompts, texts_of
from sdo_ray.config.inputs import Inputs
from sdo_ray.config.run import model_of, open_run
from sdo_ray.dry_batch.batch import check_by_dry_batch
from sdo_ray.evaluation.outcome import Outcome, read_outcome
from sdo_ray.models.bound import bound_layers
from sdo_ray.models.load import checks_of
from sdo_ray.models.policy import initial_policy
from sdo_ray.seeds import derive_seed
from sdo_ray.settings import under
from sdo_ray.storage import RunDirectory
from sdo_ray.training.checkpoints import checkpoint_bytes
from sdo_ray.training.fitting import check_optimizer
from sdo_ray.training.standing import check_trainers, check_updates, is_extended, progress


@dataclass(frozen=True)
class Ready:
    """A run that passed every check."""

    run: RunDirectory
    settings: AlignSettings
    """With the model at the commit that it is read at."""
    initial: dict[str, torch.Tensor]
    """Policy version 0."""
    inputs: Inputs
    uri: str
    """MLflow's."""


def check(settings: AlignSettings) -> Ready | Outcome:
    """All that is checked before anything starts; of a run that is complete, its outcome.

    Raises:
        SettingsError: it cannot work.
    """
    check_align(settings)
    run = open_run(settings)
    read = settings.model_copy(update={"model": model_of(settings.model, run)})
    with under("model"):
        initial = initial_policy(read.model, derive_seed(settings.run.seed, "adapter", 0))
    inputs = Inputs(texts_of(settings))
    inputs.check(run)
    updates = settings.training.updates
    with under("training"):
        check_updates(run, updates)
    with under("trainers"):
        check_trainers(run, settings.trainers)
    check_optimizer(settings.training, settings.trainers, {name: tensor.shape for name, tensor in initial.items()})
    if (outcome := known_outcome(run, lambda run: _outcome_of(run, updates))) is not None:
        return outcome
    uri = check_run(settings, run, checkpoint_bytes(initial))
    if not progress(run)[0]:
        check_by_dry_batch(read)
    print(f"{run.name}: trains {bound_layers(initial)}", flush=True)
    for said in said_of_prompts(read):
        print(f"{run.name}: {said}", flush=True)
    if checks := checks_of(read.model.base):
        print(f"{run.name}: learns without the model's {' and '.join(checks)}; the exported model has it", flush=True)
    return Ready(run, read, initial, inputs, uri)


def _outcome_of(run: RunDirectory, updates: int) -> Outcome | None:
    """The outcome of a run that is complete with so many updates."""
    outcome = read_outcome(run)
    return None if outcome is None or is_extended(run, updates, outcome.updates) else outcome
