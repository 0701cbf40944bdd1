"""Bad input is refused before anything starts: exit code 2, every problem on a line, no Ray, no run directory."""

import shutil
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipelines.align import main
from sdo_ray.config.align import AlignSettings
from sdo_ray.config.align_checks import check_align
from sdo_ray.config.loading import load_settings
from sdo_ray.config.run import keep_settings, open_run
from sdo_ray.settings import SettingsError
from sdo_ray.storage import RunDirectory
from tests.support.runs import tiny_settings

Refuse = Callable[..., str]


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> Path:
    table = {"word": ["a", "b"], "number": [1, 2], "hole": ["a", None], "blank": ["a", " \n"]}
    pq.write_table(pa.table(table), tmp_path / "odd.parquet")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "empty").mkdir()
    return tiny_settings(tmp_path, tiny_base)


@pytest.fixture
def refuse(settings: Path, tmp_path: Path, capsys, monkeypatch) -> Refuse:
    """Runs `sdo align` with `--set` for each argument; it must refuse. Returns what it said."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> str:
        before = ray.is_initialized()
        code = main([str(settings), *(part for override in overrides for part in ("--set", override))])
        said = capsys.readouterr()
        assert code == 2
        assert said.err.startswith("sdo align did not start:\n  - ")
        assert "starting on" not in said.out
        assert before or not ray.is_initialized()
        assert not (tmp_path / "runs/tiny").exists()
        return said.err

    return run


CASES = {
    "unknown setting": (
        ["sampling.num_steps=3"],
        "sampling.num_steps: unknown setting; there are cache, fast_copy, num_inference_steps",
    ),
    "did you mean": (["training.lerning_rate=1"], "did you mean 'learning_rate'?"),
    "unknown setting in a list": (["rewards.terms.1.wieght=3"], "rewards.terms.1.wieght: unknown setting"),
    "unknown section": (["smapling.options={}"], "smapling: unknown setting; there are run, model, prompts"),
    "settings of what is not trained": (["model.train=full"], "`lora` is given, but `train` is 'full'"),
    "no such layer of a text encoder": (
        ["model.lora.text_encoder_targets=[to_z]"],
        "model.lora.text_encoder_targets: no linear layer of a text encoder ends with to_z",
    ),
    "coupled steps on the trainers": (
        ["training.backward=trainer", "plan.name=full", "plan.options={}"],
        "training.backward: got 'trainer', but plan 'full' with these options couples steps",
    ),
    "text encoders on the trainers": (
        ["training.backward=trainer", "model.lora.text_encoder_targets=[q_proj]"],
        "training.backward: got 'trainer', but model.lora.text_encoder_targets trains more than the denoisers",
    ),
    "rounded weights on the trainers": (
        ["training.backward=trainer", "model.quantize={unet: int8}"],
        "training.backward: got 'trainer', but model.quantize rounds weights where images are made",
    ),
    "rounded weights that are trained": (
        ["model.train=full", "model.lora=null", "model.quantize={unet: int8}"],
        "`quantize` rounds weights that what is trained is made of",
    ),
    "text encoders that other policies know nothing of": (
        ["plan={name: group, options: {kl: 0.01}}", "model.lora.text_encoder_targets=[q_proj]"],
        "plan.options: loss, kl or output_kl make kept denoiser calls again with other weights, but model.lora.text",
    ),
    "an anchor with coupled steps": (
        ["training.anchor=1.0", "plan.name=full", "plan.options={}"],
        "training.anchor: got 1, but plan 'full' with these options couples steps",
    ),
    "an anchor of one half of guidance": (
        ["training.anchor=1.0", "plan.options={guidance: prompt}"],
        "learns by one half of guidance, and kept steps could not be made again",
    ),
    "an anchor where plans have one": (
        ["training.anchor=1.0", "plan={name: group}"],
        "training.anchor: got 1 with plan 'group', which has one of its own; set plan.options.output_kl",
    ),
    "an anchor beside text encoders": (
        ["training.anchor=1.0", "model.lora.text_encoder_targets=[q_proj]"],
        "training.anchor: got 1, but model.lora.text_encoder_targets trains more than the denoisers",
    ),
    "text encoders that are trained and away": (
        ["samplers.text_encoders=offload", "model.lora.text_encoder_targets=[q_proj]"],
        "samplers.text_encoders: got 'offload', but model.lora.text_encoder_targets trains text encoders",
    ),
    "parts of text encoders that are away": (
        ["samplers.text_encoders=offload", "samplers.num_gpus=1", "sampling.options.clip_skip=1"],
        "samplers.text_encoders: got 'offload', but sampling.options.clip_skip has a pipeline use parts",
    ),
    "nothing to shard": (["trainers.zero_stage=3"], "trainers.zero_stage: got 3, which shards the denoiser's weights"),
    "a type of what trainers do not hold": (
        ["trainers.dtype=bfloat16", "model.dtype=bfloat16"],
        "trainers.dtype: got 'bfloat16', which is of denoisers, but with training.backward = sampler the trainers have",
    ),
    "trainers of another type": (
        ["trainers.dtype=bfloat16", "training.backward=trainer"],
        "trainers.dtype: got 'bfloat16', but model.dtype is float32, and samplers would compute in another type",
    ),
    "denoisers of another type": (
        [
            *("trainers.dtype=bfloat16", "training.backward=trainer"),
            *("model.dtype=bfloat16", "model.dtypes={unet: float32}"),
        ],
        "trainers.dtype: got 'bfloat16', but model.dtypes.unet is float32",
    ),
    "half precision that is stepped": (
        ["trainers.dtype=bfloat16", "trainers.zero_stage=0"],
        "dtype is 'bfloat16', in which small steps are lost, and zero_stage is 0",
    ),
    "float16 on trainers": (["trainers.dtype=float16"], "trainers.dtype: got 'float16'"),
    "a word for a number": (["training.updates=many"], "training.updates: got 'many' (str)"),
    "a float for an integer": (["training.updates=1.5"], "training.updates: got 1.5 (float)"),
    "a value for a section": (["model=3"], "model: got 3; it is a section with the settings base, "),
    "a value for a list": (["rewards.terms=3"], "rewards.terms: got 3 (int)"),
    "out of range": (
        ["training.learning_rate=-1.0"],
        "training.learning_rate: got -1.0 (float); input should be greater",
    ),
    "more GPUs than a sampler uses": (
        ["samplers.num_gpus=2.0"],
        "samplers.num_gpus: got 2.0 (float); input should be less",
    ),
    "two trainers on one GPU": (
        ["trainers.num_gpus=0.5"],
        "trainers.num_gpus is 0.5 of each of 2 workers, which may be given one GPU together",
    ),
    "not one of the choices": (
        ["trainers.zero_stage=4"],
        "trainers.zero_stage: got 4 (int); input should be 0, 1, 2 or 3",
    ),
    "a name with a slash": (["run.name=a/b"], "run.name: got 'a/b'"),
    "a name too long for a directory": (["run.name=" + "x" * 300], "at most 200 characters"),
    "no such list position": (["rewards.terms.7.weight=1.0"], "'7' is no position in a list of 3"),
    "not an assignment": (["training.updates"], "--set: got 'training.updates'; it takes section.key=value"),
    "missing prompt file": (["prompts.train=no.parquet"], "prompts.train: 'no.parquet' does not exist"),
    "missing held-out file": (["evaluation.prompts=no.parquet"], "evaluation.prompts: 'no.parquet' does not exist"),
    "not parquet": (["prompts.train=text.parquet"], "'text.parquet' cannot be read as parquet"),
    "a directory without parquet": (
        ["prompts.train=empty"],
        "'empty' cannot be read as parquet: it is a directory without parquet files; give .csv",
    ),
    "no prompts": (["prompts.train=none.parquet"], "'none.parquet' has no rows"),
    "missing column": (["prompts.train=odd.parquet"], "no column 'prompt'; it has word, number, hole, blank"),
    "non-string column": (
        ["prompts.train=odd.parquet", "prompts.column=number"],
        "column 'number' holds int64; it takes text",
    ),
    "null prompt": (
        ["prompts.train=odd.parquet", "prompts.column=hole"],
        "1 of 2 rows have no text in column 'hole' (rows 1, from 0)",
    ),
    "blank prompt": (
        ["prompts.train=odd.parquet", "prompts.column=blank"],
        "1 of 2 rows have no text in column 'blank' (rows 1, from 0)",
    ),
    "unknown zoo model": (["model.base=zoo://emojis"], "got 'zoo://emojis'; the zoo has zoo://emoji"),
    "missing model directory": (["model.base=./nowhere"], "'./nowhere' is no directory here and no hub id"),
    "a directory that is no model": (["model.base=empty"], "the directory 'empty' has no model_index.json"),
    "unknown layers": (["model.lora.targets=[to_z]"], "no linear or convolution layer of the unet ends with to_z"),
    "unknown plan": (["plan.name=sdoo"], "got 'sdoo'; legal: one of "),
    "unknown plan option": (["plan.options={k: 1}"], "plan.options.k: got 1; legal: options of sdo: K"),
    "a plan that is no function": (
        ["plan={name: 'torch:float32'}"],
        "plan.name: got 'torch:float32', which is no function",
    ),
    "more kept steps than steps": (["plan.options={K: 5}"], "plan.options.K: got 5; legal: an integer in 1 .. 4"),
    "unknown reward": (
        ["rewards.terms.0.name=preferense"],
        "there is no reward 'preferense' (did you mean 'preference'?)",
    ),
    "unknown reward option": (["rewards.terms.0.options={x: 1}"], "has no option 'x'; it has seconds"),
    "unknown evaluator": (
        ["evaluation.evaluators.0.name=evaluator"],
        "evaluation.evaluators.0.name: there is no reward 'evaluator'; there are",
    ),
    "a group of one": (
        ["plan={name: group, options: {children: 1}}"],
        "plan.options.children: got 1; legal: an integer of at least 2",
    ),
    "unknown option of a group": (
        ["plan={name: group, options: {G: 8}}"],
        "plan.options.G: got 8; legal: options of group: children",
    ),
    "a kernel of another kind of model": (
        ["plan={name: group, options: {kernel: sde}}"],
        "plan.options.kernel: got 'sde'; legal: cps, ddim or ou: sde is an equation of flow matching",
    ),
    "noise twice": (
        ["plan.name=group", "sampling.options={eta: 1.0}"],
        "sampling.options.eta: got 1.0, but the steps' noise is that of plan 'group'",
    ),
    "black box with weight": (["rewards.terms.2.weight=1.0"], "has weight 1.0 but no gradient: it is a black box"),
    "held-out evaluator with weight": (
        ["rewards.terms.0.name=heldout_preference"],
        "'heldout_preference' is held out for evaluation and has weight 1.0",
    ),
    "a learned evaluator": (
        ["evaluation.evaluators.0.name=tests.support.ink:Ink"],
        "'tests.support.ink:Ink' is learned from, with weight 1, and so no evaluator",
    ),
    "an evaluator twice": (
        ["evaluation.evaluators=[{name: heldout_preference}, {name: heldout_preference}]"],
        "'heldout_preference' is named 2 times",
    ),
    "a reward twice": (["rewards.terms.1.name=tests.support.ink:Ink"], "named more often: tests.support.ink:Ink"),
    "nothing to learn from": (
        ["rewards.terms=[{name: alignment, weight: 0.0}]"],
        "no reward has a weight other than 0",
    ),
    "a weight that is no number": (["rewards.terms.0.weight=.nan"], "must be a finite number"),
    "unknown option of the call": (["sampling.options={heigth: 8}"], "StableDiffusionPipeline takes no heigth here"),
    "an option that the run gives": (["sampling.options={generator: 8}"], "takes no generator here; it takes "),
    "a way to decode that no autoencoder of it has": (
        ["sampling.decode=frames"],
        "sampling.decode: got 'frames', which no autoencoder of a StableDiffusionPipeline has; choose 'whole'",
    ),
    "batch not divisible": (
        ["training.batch_size=7"],
        "training.batch_size: got 7, which samplers.batch_size = 2 does not",
    ),
    "added up not dividing": (
        ["training.batch_size=8", "samplers.batch_size=2", "samplers.accumulate=3"],
        "training.batch_size: got 8, which samplers.batch_size = 2 x samplers.accumulate = 3 does not divide",
    ),
    "more at a start than ever": (["samplers.at_least=5"], "samplers.at_least: got 5, of samplers.count = "),
    "trainers not dividing": (["trainers.count=3"], "trainers.count: got 3, which does not divide the 4 contributions"),
    "prompts that are held out and trained on": (
        ["evaluation.prompts=prompts.parquet"],
        "evaluation.prompts: 7 of 7 prompts are also trained on, such as 'a'; what was learned shows on prompts",
    ),
    "too many held-out prompts": (["evaluation.num_prompts=8"], "has 7 prompts; ask for at most that many"),
    "storage of an unknown kind": (["run.storage=tape://x"], "run.storage: 'tape://x' cannot be used"),
    "storage that cannot be written": (["run.storage=/proc/runs"], "run.storage: '/proc/runs' cannot be written"),
}


@pytest.mark.parametrize(("overrides", "said"), CASES.values(), ids=CASES.keys())
def test_refused(refuse: Refuse, overrides: list[str], said: str) -> None:
    assert said in refuse(*overrides)


def test_unknown_names_list_what_exists(refuse: Refuse) -> None:
    assert "heldout_alignment, heldout_preference, " in refuse("rewards.terms.0.name=nothing")
    assert "draft, " in refuse("plan.name=nothing")


def test_all_problems_at_once(refuse: Refuse) -> None:
    said = refuse("training.batch_size=7", "plan.name=x", "model.base=zoo://y", "prompts.train=no.parquet")
    assert said.count("\n  - ") == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.yaml", None, "there is no file"),
        ("binary.yaml", b"\xff\xfe\x00", "is not text"),
        ("broken.yaml", b"a: [1", "is not YAML"),
        ("list.yaml", b"- 1", "holds list, not sections"),
        ("empty.yaml", b"{}", "model: missing; it has no default, so give it."),
    ],
)
def test_settings_files_that_are_none(tmp_path: Path, capsys, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err


def test_no_disk_space_for_checkpoints(refuse: Refuse, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    said = refuse()
    assert "run.storage: " in said
    assert "has 0 MB free, and the run's checkpoints need" in said


def test_mlflow_that_does_not_answer(refuse: Refuse, monkeypatch) -> None:
    import mlflow  # noqa: F401  its import is slow, and not what is timed

    for scheme in ("http", "postgresql"):  # the second has no driver here, or no server
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://user:hunter2@127.0.0.1:9")
        began = time.monotonic()
        said = refuse()
        assert time.monotonic() - began < 10
        assert f"MLFLOW_TRACKING_URI: MLflow at {scheme}://127.0.0.1:9 does not answer" in said
        assert "hunter2" not in said


def test_same_name_with_other_settings(settings: Path, capsys) -> None:
    known = load_settings(AlignSettings, settings)
    keep_settings(open_run(known), known)
    assert main([str(settings), "--set", "training.learning_rate=0.5", "--set", "plan.options={K: 2}"]) == 2
    said = capsys.readouterr().err
    assert "training.learning_rate: the run 'tiny' has 0.01, got 0.5" in said
    assert "plan.options.K: the run 'tiny' has 1, got 2" in said
    assert "use them to resume, or another name" in said
    assert not ray.is_initialized()


def test_cluster_too_small(refuse: Refuse) -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        said = refuse()
    finally:
        ray.shutdown()
    assert "cluster: the run needs 7 CPU and 0 GPU at once, and there are 1 CPU and 0 GPU" in said
    assert "samplers: 2 x (1 CPU)" in said
    assert "lower samplers.count" in said


def test_more_gpus_than_this_machine_has(refuse: Refuse) -> None:
    said = refuse("rewards.terms.0.num_gpus=1000.0")
    ray.shutdown()
    assert "needs 7 CPU and 1000 GPU at once" in said


def test_a_run_that_began_with_prompts_that_are_held_out_and_trained_on_goes_on(settings: Path) -> None:
    """Earlier versions took them, and its training is paid for."""
    given = load_settings(AlignSettings, settings, ["evaluation.prompts=" + str(settings.parent / "prompts.parquet")])
    with pytest.raises(SettingsError, match="also trained on"):
        check_align(given)
    keep_settings(RunDirectory(given.run.storage, given.run.name), given)
    check_align(given)
