"""What trainers can compute, and in which type."""

from __future__ import annotations

from sdo_ray.backprop.denoisers import denoiser_names
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.calls import check_estimator
from sdo_ray.models.settings import ModelSettings
from sdo_ray.settings import Problem, SettingsError
from sdo_ray.training.settings import TrainerSettings, TrainingSettings


def check_trainers_type(trainers: TrainerSettings, training: TrainingSettings, model: ModelSettings) -> None:
    """Refuse bfloat16 where trainers hold no denoisers, or samplers hold them in another type.

    Raises:
        SettingsError: of `trainers.dtype`.
    """
    if trainers.dtype == "float32":
        return
    got, fix = f"got {trainers.dtype!r}", "choose float32"
    if training.backward == "sampler":
        got += ", which is of denoisers, but with training.backward = sampler the trainers have none"
        raise SettingsError(Problem("trainers.dtype", got, fix=f"{fix}, or training.backward = trainer"))
    own = {f"model.dtypes.{name}": model.dtypes[name] for name in denoiser_names(model.dtypes)}
    for place, dtype in {"model.dtype": model.dtype, **own}.items():
        if dtype != trainers.dtype:
            got += f", but {place} is {dtype}, and samplers would compute in another type"
            raise SettingsError(Problem("trainers.dtype", got, fix=f"{fix}, or {place} = {trainers.dtype}"))


def check_backward(settings: AlignSettings, base: str | None) -> None:
    """Refuse trainers that run kept steps again where these, or what is trained in them, are not theirs.

    Args:
        settings: of the run.
        base: the model's reference; None where it cannot be read, which is said elsewhere.

    Raises:
        SettingsError: of `training.backward`, or of `trainers.zero_stage`.
    """
    if settings.training.backward == "sampler":
        if settings.trainers.zero_stage == 3:
            raise SettingsError(
                Problem(
                    "trainers.zero_stage",
                    "got 3, which shards the denoiser's weights, but with training.backward = sampler the trainers "
                    "have none",
                    fix="choose 2, or training.backward = trainer",
                )
            )
        return
    if beyond := settings.model.kind.beyond_denoisers(settings.model.kind_settings):
        raise SettingsError(
            Problem(
                "training.backward",
                f"got 'trainer', but model.{settings.model.train}.{beyond} trains more than the denoisers, and its "
                "gradient comes from the sampling as a whole",
                fix="choose 'sampler', or train them alone",
            )
        )
    if settings.model.quantize:
        got = (
            "got 'trainer', but model.quantize rounds weights where images are made, and trainers would hold them whole"
        )
        raise SettingsError(Problem("training.backward", got, fix="choose 'sampler', or leave model.quantize out"))
    try:
        plans = check_estimator(settings.plan, settings.sampling, "plan", base)
    except SettingsError:
        return  # said by the check of the plan
    if not all(plan.is_of_single_calls for plan in plans):
        raise SettingsError(
            Problem(
                "training.backward",
                f"got 'trainer', but plan {settings.plan.name!r} with these options couples steps or re-noises, which "
                "takes the sampler's graph",
                fix="choose 'sampler', or a plan of single steps such as sdo",
            )
        )
