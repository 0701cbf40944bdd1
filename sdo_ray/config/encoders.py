"""Whether weights can lie and be rounded the way that settings say, for all commands that load a model to sample."""

from __future__ import annotations

from sdo_ray.models.load import pipeline_class
from sdo_ray.models.quantised import check_installed
from sdo_ray.models.settings import ModelSettings
from sdo_ray.rollout.settings import SamplerSettings, SamplingSettings
from sdo_ray.rollout.texts import check_called_whole
from sdo_ray.settings import Problem, SettingsError


def check_rounded(model: ModelSettings) -> None:
    """Refuse roundings whose packages are not here.

    Raises:
        SettingsError: which one.
    """
    for to in set(model.quantize.values()):
        check_installed(to, "model.quantize")


def check_texts(samplers: SamplerSettings, sampling: SamplingSettings, base: str | None, trained: str = "") -> None:
    """Refuse to put text encoders away where that cannot work.

    Args:
        samplers: where they are to be.
        sampling: how the pipeline is called.
        base: the model's reference; None if it cannot be read, or there are several.
        trained: the setting by which they are trained, if they are.

    Raises:
        SettingsError: why.
    """
    if samplers.text_encoders == "keep":
        return
    if trained:
        got = f"got 'offload', but {trained} trains text encoders"
        raise SettingsError(Problem("samplers.text_encoders", got, fix="choose 'keep', or train the denoisers alone"))
    if not samplers.num_gpus:
        return  # where they lie is where they compute
    if sampling.options.get("clip_skip") is not None:
        got = "got 'offload', but sampling.options.clip_skip has a pipeline use parts of an encoder by themselves"
        raise SettingsError(Problem("samplers.text_encoders", got, fix="choose 'keep', or remove clip_skip"))
    if base is not None:
        check_called_whole(pipeline_class(base))


def check_trained_texts(
    model: ModelSettings, samplers: SamplerSettings, sampling: SamplingSettings, base: str | None
) -> None:
    """`check_texts` of a model that has something to train."""
    beyond = model.kind.beyond_denoisers(model.kind_settings)
    check_texts(samplers, sampling, base, f"model.{model.train}.{beyond}" if beyond else "")
