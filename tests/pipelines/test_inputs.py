"""Columns of the prompts' file feed the pipeline in every command that calls it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipelines import fidelity, sample, schedule
from rewards.scoring import score_with_gradient
from rewards.terms import Mixing, RewardTerm
from sdo_ray.backprop import make_plan
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.evaluate import EvaluateSettings, check_evaluate
from sdo_ray.config.fidelity import FidelityRunSettings, check_fidelity
from sdo_ray.config.loading import load_settings
from sdo_ray.config.optimize import OptimizeSettings, check_optimize
from sdo_ray.config.roles import find_roles
from sdo_ray.config.schedule import ScheduleSettings, check_schedule
from sdo_ray.dry_batch.batch import dry_batch
from sdo_ray.evaluation.images import image_blocks
from sdo_ray.fidelity.gradients import Evaluated, plan_gradient
from sdo_ray.input_optimization.loop import optimize_batch
from sdo_ray.input_optimization.records import RowBatch, results_table
from sdo_ray.input_optimization.rows import batches
from sdo_ray.models.policy import load_model
from sdo_ray.prompts.inputs import COLUMN, Prompts, argument_of, from_column, texts_of
from sdo_ray.rollout.records import PromptBatch
from sdo_ray.rollout.reward_settings import RewardActorSettings, RewardSettings
from sdo_ray.settings import SettingsError
from tests.pipelines.test_any_model import inpainting
from tests.support.ink import Ink

INPUTS = {"image": "source", "mask_image": "mask"}
SAMPLING = {"num_inference_steps": 2, "options": {"height": 32, "width": 32, "strength": 1.0}}
INK = [{"name": "tests.support.ink:Ink"}]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """With an inpainting model in `base`, prompts in `train.csv` and `heldout.csv`, images and masks."""
    inpainting(tmp_path)
    return tmp_path


def settings(directory: Path, kind: Any, **sections: Any) -> Any:
    path = directory / "job.yaml"
    common = {"run": {"name": "job", "storage": str(directory / "runs")}, "sampling": SAMPLING}
    path.write_text(yaml.safe_dump(common | sections))
    return load_settings(kind, path)


def evaluation(directory: Path, inputs: Mapping[str, str] = INPUTS) -> EvaluateSettings:
    return settings(
        directory,
        EvaluateSettings,
        models={"base": {"model": str(directory / "base")}, "candidate": {"model": str(directory / "base")}},
        prompts={"heldout": "heldout.csv", "inputs": dict(inputs), "num_prompts": 3, "images_per_prompt": 2},
        rewards=INK,
        features=None,
        samplers={"batch_size": 4},
    )


def comparison(directory: Path, inputs: Mapping[str, str] = INPUTS) -> FidelityRunSettings:
    return settings(
        directory,
        FidelityRunSettings,
        model={"base": str(directory / "base"), "lora": {"rank": 2, "alpha": 2.0}},
        prompts={"train": "train.csv", "inputs": dict(inputs)},
        rewards={"terms": INK},
        samplers={"batch_size": 2},
        fidelity={"batches": 2, "plans": [{"name": "sdo", "options": {"K": 1}}]},
    )


def optimization(directory: Path, inputs: Mapping[str, str] = INPUTS, **rows: Any) -> OptimizeSettings:
    return settings(
        directory,
        OptimizeSettings,
        model={"base": str(directory / "base")},
        rows={"path": "train.csv", "limit": 3, "inputs": dict(inputs)} | rows,
        optimization={"variable": "prompt_embeds", "iterations": 1, "learning_rate": 0.1},
        rewards={"terms": INK},
        samplers={"batch_size": 2},
    )


def stems(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [Path(str(row["image"])).stem for row in rows]


def ink(images: torch.Tensor, texts: Any, seeds: Sequence[int]) -> tuple[dict, dict]:
    scores, gradient = score_with_gradient(Ink(), images, ["a"] * len(images))
    return {INK[0]["name"]: scores}, {INK[0]["name"]: gradient}


def test_evaluate(directory: Path) -> None:
    given = evaluation(directory)
    questions = check_evaluate(given)
    find_roles(given.models, given.sampling, "", given.prompts.inputs)
    blocks = image_blocks(["base"], questions, 4)
    for block in blocks:
        assert stems(from_column(block[COLUMN].to_pylist())) == block["prompt"].to_pylist()
    assert sum(map(len, blocks)) == 6


def test_fidelity(directory: Path) -> None:
    given = comparison(directory)
    check_fidelity(given)
    work = fidelity._work(given)
    assert all(stems(piece.batch.inputs) == list(piece.batch.prompts) for piece in work)
    config = given.gradient_config()
    pipeline = load_model(given.model)
    trained = dict(pipeline.unet.requires_grad_(True).named_parameters())
    evaluated = Evaluated(3, config.sampling, ink, [RewardTerm(INK[0]["name"], 1.0)], mixing=Mixing())

    def gradient(batch: PromptBatch) -> torch.Tensor:
        return plan_gradient(pipeline, trained, batch, make_plan("sdo", 2, K=1), evaluated).gradient

    batch = work[0].batch
    assert not torch.equal(gradient(batch), gradient(replace(batch, inputs=batch.inputs[::-1])))


def test_schedule(directory: Path) -> None:
    given = settings(
        directory,
        ScheduleSettings,
        model={"base": str(directory / "base"), "lora": {"rank": 2, "alpha": 2.0}},
        prompts={"train": "train.csv", "inputs": INPUTS},
        sampling=SAMPLING | {"num_inference_steps": 4},
        rewards={"terms": [{"name": INK[0]["name"], "text": "source"}]},
        samplers={"batch_size": 2},
        search={"batches": 1, "check_batches": 1},
    )
    check_schedule(given)
    assert all(stems(batch.inputs) == list(batch.prompts) for batch in schedule._batches(given))
    assert given.trial_config().sampling.pipeline_call(["a"])["image"]


def test_optimize(directory: Path) -> None:
    given = optimization(directory)
    check_optimize(given)
    first, last = batches(given.texts(), 2, given.inputs())
    assert [stems(part.inputs) for part in (first, last)] == [["a", "b"], ["c"]]
    assert RowBatch.from_arrow(first.to_arrow()) == first
    pipeline = load_model(comparison(directory).model)
    pipeline.unet.requires_grad_(False)
    results = optimize_batch(pipeline, first, given.optimizer_config(), ink)
    assert RowBatch.from_arrow(results_table(results)) == first
    swapped = optimize_batch(pipeline, replace(first, inputs=first.inputs[::-1]), given.optimizer_config(), ink)
    assert results[0].initial_image != swapped[0].initial_image


def test_sample(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--model", str(directory / "base"), "--steps", "2", "--height", "32", "--width", "32", "--limit", "2"]
    how += ["--set", "strength=1.0", "--input", "image=source", "--input", "mask_image=mask"]

    def drawn(prompts: str, out: str) -> list[bytes]:
        assert sample.main([*how, "--prompts", str(directory / prompts), "--out", str(directory / out)]) == 0
        return [file.read_bytes() for file in sorted((directory / out).glob("0*.png"))]

    train = (directory / "train.csv").read_text()
    (directory / "other.csv").write_text(train.replace("images/a.png", "images/c.png"))
    images, others = drawn("train.csv", "images-out"), drawn("other.csv", "others-out")
    assert [a == b for a, b in zip(images, others, strict=True)] == [False, True]
    assert sample.main([*how, "--prompt", "a", "--out", str(directory / "out")]) == 2
    assert "--input: given, but a --prompt has no columns; give the prompts by --prompts" in capsys.readouterr().err


def test_a_reward_is_given_what_the_pipeline_was_given(directory: Path) -> None:
    near = {"name": "source_similarity", "options": {"source": str(directory / "dino")}}
    given = evaluation(directory).model_copy(update={"rewards": [RewardActorSettings(**near, text="source")]})
    check_evaluate(given)
    assert given.rewards[0].key == "source_similarity@source"
    batch = Prompts(["a", "b"], [{"image": "1.png", "mask_image": "2.png"}] * 2)
    assert texts_of(batch, argument_of("source", INPUTS)) == ["1.png", "1.png"]
    assert texts_of(batch, argument_of(None, INPUTS)) == texts_of(["a", "b"], None) == ["a", "b"]
    with pytest.raises(SettingsError, match=r"there is no image '[h-n]'; give its term the column"):
        check_evaluate(given.model_copy(update={"rewards": [RewardActorSettings(**near)]}))
    for check, made in ((check_fidelity, comparison(directory)), (check_optimize, optimization(directory))):
        terms = [RewardSettings(name="tests.support.ink:Ink", text="smell")]
        wrong = made.model_copy(update={"rewards": made.rewards.model_copy(update={"terms": terms})})
        with pytest.raises(SettingsError, match="'smell'"):
            check(wrong)


def test_columns_that_rewards_alone_are_given(tmp_path: Path) -> None:
    """The prompts' file has another column, which no argument of the call is fed by."""
    path = inpainting(tmp_path)
    for file in ("train.csv", "heldout.csv"):
        header, *lines = (tmp_path / file).read_text().splitlines()
        lines = [f"{line},{'to be read ' * number}x" for number, line in enumerate(lines)]
        (tmp_path / file).write_text("\n".join([f"{header},words", *lines]))
    settings = load_settings(AlignSettings, path, ["rewards.terms.0.text=words"])
    check_align(settings)
    rows = settings.inputs()
    assert texts_of(Prompts(["a", "b"], rows[:2]), argument_of("words", settings.columns)) == ["x", "to be read x"]
    call = settings.called_sampling.pipeline_call(["a", "b"], rows[:2])
    assert {"image", "mask_image", "strength"} <= call.keys()
    assert not [name for name in call if name.startswith("reward")]
    assert dry_batch(settings) is None
    with pytest.raises(SettingsError, match="has no column 'smell'"):
        check_align(load_settings(AlignSettings, path, ["rewards.terms.0.text=smell"]))


def test_looks_during_training_are_given_them_too(tmp_path: Path) -> None:
    check_align(load_settings(AlignSettings, inpainting(tmp_path), ["evaluation.watch={every: 1, num_prompts: 2}"]))


@pytest.mark.parametrize("wrong", [{"smell": "source"}, {"image": "nothing"}, {"prompt": "source"}, {"height": "mask"}])
def test_what_cannot_be_is_said_before_work_starts(directory: Path, wrong: dict[str, str]) -> None:
    def evaluated() -> None:
        given = evaluation(directory, wrong)
        check_evaluate(given)
        find_roles(given.models, given.sampling, "", given.prompts.inputs)

    said = next(iter(wrong)) if "image" not in wrong else "no column 'nothing'"
    checks = (
        evaluated,
        lambda: check_fidelity(comparison(directory, wrong)),
        lambda: check_optimize(optimization(directory, wrong)),
    )
    for check in checks:
        with pytest.raises(SettingsError, match=said):
            check()


def test_rows_that_are_in_the_settings_have_no_files_beside_them(directory: Path) -> None:
    given = [{"prompt": "a", "source": "images/a.png"}]
    with pytest.raises(SettingsError, match=r"rows\.inputs: given, but the rows have no file; give the rows by `path`"):
        check_optimize(optimization(directory, path=None, given=given))
