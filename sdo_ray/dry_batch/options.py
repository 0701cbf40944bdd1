"""Whether a pipeline can be called with the options of a job that tries no whole batch beforehand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sdo_ray.dry_batch.batch import TIMEOUT, Say
from sdo_ray.dry_batch.calls import check_call, stand_in
from sdo_ray.dry_batch.process import Died, apart
from sdo_ray.models.load import load_pipeline
from sdo_ray.models.small import is_large
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError


def check_options_by_a_call(base: str, sampling: SamplingSettings, batch_size: int) -> None:
    """Refuse options with which the call fails, and without which it does not.

    The call is made on the driver's CPU, in a process of its own, up to its first denoiser call: with the model itself
    or, where that is large, with a stand-in, see `sdo_ray.dry_batch.calls.stand_in`.

    Args:
        base: the model's reference.
        sampling: how it is called, with an example of what comes beside prompts.
        batch_size: prompts of a call; more than two are two.

    Raises:
        SettingsError: which option, and what was raised.
    """
    if not sampling.options:
        return
    print("trying the call with its options", flush=True)
    try:
        apart(partial(_check, base, sampling, ["a", "b"][:batch_size]), TIMEOUT)
    except Died:
        return  # what ends a whole process is no matter of options
    except SettingsError as error:
        if of_options := [one for one in error.problems if one.setting.startswith("sampling.options.")]:
            raise SettingsError(*of_options) from None


def _check(base: str, sampling: SamplingSettings, prompts: list[str], say: Say) -> None:
    say("sampling.options")
    with TemporaryDirectory(prefix="sdo-options-") as directory:
        if not is_large(base):
            check_call(load_pipeline(base), sampling, prompts, "change it")
            return
        try:
            base = stand_in(base, Path(directory))
        except ValueError:  # there is none
            return
        try:
            check_call(load_pipeline(base), sampling, prompts, "change it")
        except SettingsError as error:
            if not isinstance(error.__context__, IndexError):  # of an option that counts layers, of which it has few
                raise
