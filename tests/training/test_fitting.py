"""What cannot be trained is said before trainers start."""

from collections.abc import Collection

import pytest

from sdo_ray.settings import SettingsError
from sdo_ray.training.fitting import GIB, Load, check_optimizer, too_large
from sdo_ray.training.settings import TrainerSettings, TrainingSettings

BILLION = 10**9


@pytest.mark.parametrize(
    ("optimizer", "stage", "shapes", "complaint"),
    [
        ("adafactor", 2, {}, r"got 'adafactor', which keeps whole matrices, and trainers.zero_stage = 2 cuts them"),
        (
            "muon",
            0,
            {"a": (2, 2), "conv": (2, 2, 3, 3)},
            r"1 of 2 weights are none: conv; choose adamw, or ada",
        ),
    ],
)
def test_optimizers_that_cannot_step_it(
    optimizer: str, stage: int, shapes: dict[str, Collection[int]], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^training.optimizer: .*{complaint}"):
        check_optimizer(TrainingSettings(optimizer=optimizer), TrainerSettings(zero_stage=stage), shapes)


def test_those_that_can() -> None:
    for optimizer, stage in (("adamw", 0), ("adamw", 3), ("adafactor", 0), ("muon", 0)):
        check_optimizer(TrainingSettings(optimizer=optimizer), TrainerSettings(zero_stage=stage), {"a": (2, 2)})


def test_bytes_of_a_trainer_in_closed_form() -> None:
    training = TrainingSettings()

    def load(**trainers: object) -> Load:
        return Load.of(6, 2.0, training, TrainerSettings(count=2, **trainers))

    weights, gradients, masters, moments = 24 + 2, 24, 24, 48
    policy, start = 24, 3 * 24 + 2  # it stays as it came; at first it is there thrice, once with the other weights
    assert load(zero_stage=0) == Load(policy + weights + gradients + moments)
    assert load(zero_stage=1) == Load(policy + weights + gradients + (masters + moments) / 2)
    assert load(zero_stage=2) == Load(policy + weights + (gradients + masters + moments) / 2)
    assert load(zero_stage=3) == Load(policy + (weights + 2 * gradients + masters + moments) / 2)
    assert load(zero_stage=2, offload="cpu") == load(zero_stage=2)
    assert load(zero_stage=2, num_gpus=1) == Load(weights + (gradients + masters + moments) / 2, start)
    assert load(zero_stage=2, num_gpus=1, offload="cpu") == Load(weights + gradients / 2, start)
    half, rounded = {"dtype": "bfloat16"}, 12 + 2
    assert load(zero_stage=1, **half) == Load(policy + rounded + gradients + (masters + moments) / 2)
    assert load(zero_stage=2, num_gpus=1, **half) == Load(rounded + (gradients + masters + moments) / 2, start)
    assert load(zero_stage=3, num_gpus=1, **half) == Load((rounded + 2 * gradients + masters + moments) / 2, start)
    four = TrainerSettings(count=4, zero_stage=1, dtype="bfloat16")  # before there are moments, weights by name
    assert Load.of(6, 2.0, training, four) == Load(policy + rounded + gradients + masters / 4 + policy)
    alone = Load.of(6, 0.0, training, TrainerSettings(num_gpus=1, offload="cpu"))
    assert alone == Load(24 + gradients, policy + masters + moments)


def test_trainers_that_are_too_small_are_told_what_would_do() -> None:
    """2.6 billion weights, SDXL's denoiser: 20 bytes of each for AdamW under ZeRO."""
    training = TrainingSettings(backward="trainer")
    trainers = TrainerSettings(num_gpus=1)

    def said(device: float, host: float, trainers: TrainerSettings = trainers) -> str:
        problem = too_large(int(2.6 * BILLION), 0.0, training, trainers, device * GIB, host * GIB)
        return str(problem or "")

    assert said(80, 200) == ""
    assert said(40, 200).startswith("trainers: each needs at least 48.4 GiB and 29.1 GiB of its host for weights, ")
    assert "set trainers.offload: cpu or set trainers.count: 2 with trainers.zero_stage: 3" in said(40, 200)
    assert "set trainers.dtype: bfloat16 with model.dtype: bfloat16 or set trainers.offload: cpu or" in said(46, 200)
    assert said(46, 200, half := trainers.model_copy(update={"dtype": "bfloat16"})) == ""
    assert "set trainers.offload: cpu or" in said(40, 200, half)
    assert "adafactor with trainers.zero_stage: 0 and trainers.dtype: float32" in said(24, 200, half)
    assert "adafactor" in said(24, 200)  # 8 bytes of each
    assert "offload" not in said(40, 20)
    assert said(16, 40).endswith("set trainers.count: 4 with trainers.zero_stage: 3 or train less, as a LoRA does.")
    assert said(4, 40).endswith("set trainers.count: 16 with trainers.zero_stage: 3 or train less, as a LoRA does.")
    assert said(20, 20, trainers.model_copy(update={"offload": "cpu"})).count("of its host") == 1
