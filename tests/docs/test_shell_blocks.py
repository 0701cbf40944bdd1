"""What README and docs tell people to type is typed: in a clean home, with the wheel, in the order of the page.

The commands are those of the page to the letter. What stands between them and the programs makes runs small, and
gives a cluster ports of its own.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.commands import COMMANDS as COMMANDS_OF_SDO
from sdo_ray.config.loading import load_settings
from tests.docs.blocks import APART, PAGES, REPOSITORY, blocks_of, why_apart
from tests.support.ports import free_port
from tests.support.recipes import save_model

LANGUAGES = ("sh", "console")
COMMANDS = re.compile(r"^(\$ )?(\w+=\S+ )*(sdo|make|ray|python|pip|export|git|docker|kubectl|mlflow|\.venv/bin/\w+) ")
BLOCKS = [block for page in PAGES for block in blocks_of(page) if block.language in LANGUAGES]
RUN = {page: [b for b in BLOCKS if b.page == page and why_apart(b) is None] for page in {b.page for b in BLOCKS}}

BEFORE = {"export.md": ["make demo"], "first-run.md": ["make demo"]}
"""What a page builds on."""
SMALL_SAMPLING = "--set sampling.num_inference_steps=2 --set samplers.count=1"
SMALL = {
    "align": f"{SMALL_SAMPLING} --set training.updates=1 --set training.batch_size=2 --set samplers.batch_size=2 "
    "--set evaluation.num_prompts=2 --set tracking.preview_prompts=[apple]",
    "evaluate": f"{SMALL_SAMPLING} --set prompts.num_prompts=2 --set samplers.batch_size=4 "
    "--set reference.num_images=8",
    "promote": "--set 'promotion.rules=[heldout_preference > -100]'",
    "cycle": "--set 'align.set={sampling.num_inference_steps: 2, samplers.count: 1, samplers.batch_size: 2, "
    "training.updates: 1, training.batch_size: 2, evaluation.num_prompts: 2}' --set 'evaluate.set="
    "{sampling.num_inference_steps: 2, samplers.count: 1, prompts.num_prompts: 2, reference.num_images: 8}' "
    "--set 'promote.set={promotion.rules: [heldout_preference > -100]}'",
    "fidelity": f"{SMALL_SAMPLING} --set fidelity.batches=2 --set fidelity.draws=2 --set samplers.batch_size=1 "
    "--set 'fidelity.plans=[{name: sdo}]'",
    "schedule": "--set sampling.num_inference_steps=3 --set samplers.batch_size=1 --set search.population=2 "
    "--set search.generations=1 --set search.holds=[taylor] --set search.check_steps=[]",
    "optimize": f"{SMALL_SAMPLING} --set optimization.iterations=1 --set rows.given.0.prompt=sun "
    "--set samplers.batch_size=8",
    "sample": "--steps 2",
}


def test_what_a_shell_runs_is_marked_as_such() -> None:
    """Else a block would be passed by here."""
    unmarked = [
        (block.page, block.first)
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in LANGUAGES and COMMANDS.match(block.text)
    ]
    assert unmarked == []
    assert len(BLOCKS) > 20


def test_every_block_is_run_or_says_why_not() -> None:
    used = {key for key in APART for block in BLOCKS if key[0] == block.page and block.text.startswith(key[1])}
    assert APART.keys() - used == set()
    assert {page for page, blocks in RUN.items() if blocks} >= {"README.md", "first-run.md", "promote.md", "cycle.md"}


FIRST_HOUR = "first-hour.md"
CONFIGS = {"align": "emoji", "optimize": "optimize_text"}


@pytest.mark.parametrize("command", [name for name in SMALL if COMMANDS_OF_SDO[name].settings])
def test_what_makes_runs_small_is_legal(command: str) -> None:
    config = REPOSITORY / f"pipelines/configs/{CONFIGS.get(command, f'{command}_emoji')}.yaml"
    words = shlex.split(SMALL[command])
    load_settings(COMMANDS_OF_SDO[command].settings_class(), config, words[1::2])
    assert set(words[::2]) == {"--set"}


@pytest.fixture
def home(tmp_path: Path, installed: Path) -> Iterator[Path]:
    """A clean home in which somebody has copied the settings files, with programs in front of those of the wheel."""
    shims, work = tmp_path / "shims", tmp_path / "home"
    shims.mkdir()
    shutil.copytree(REPOSITORY / "pipelines/configs", work / "pipelines/configs")
    shutil.copytree(REPOSITORY / "pipelines/configs/prompts", work / "prompts")
    (work / "sdo_ray/zoo").mkdir(parents=True)
    (work / "sdo_ray/zoo/data").symlink_to(REPOSITORY / "sdo_ray/zoo/data")  # reference images, of a checkout
    shutil.copy(work / "pipelines/configs/emoji.yaml", work / "my.yaml")
    (work / "raw.csv").write_text("caption\n" + "".join(f"apple {i}\n" for i in range(40)))
    (work / "runs").mkdir()
    cases = "\n".join(f"  {name}) small=({words});;" for name, words in SMALL.items())
    sdo = f"""#!/bin/bash
command="$1"; [ "$command" = submit ] && command="$2"
case "$command" in
{cases}
  *) small=();;
esac
[ "$1" = submit ] && small+=(--python {installed}/python)
exec {installed}/sdo "$@" "${{small[@]}}"
"""
    # Sockets have short names; and all ports are its own, as in `ray_cluster`.
    temporary = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    cluster = f"--port={free_port()} --dashboard-port={free_port()} --temp-dir={temporary.name} --num-cpus=6"
    cluster += f" --dashboard-agent-listen-port={free_port()} --metrics-export-port={free_port()}"
    ray = (
        f'#!/bin/bash\n[ "$1" = start ] && set -- "$@" {cluster}\nexec {installed}/python -m ray.scripts.scripts "$@"\n'
    )
    demo = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert demo is not None
    for name, text in {"sdo": sdo, "ray": ray, "make": f"#!/bin/bash\nexec {demo[1]}\n"}.items():
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)
    (work / ".venv").mkdir()
    (work / ".venv/bin").symlink_to(shims)
    yield work
    temporary.cleanup()


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """In the environment of all that a page starts; what is left of it is ended."""
    name = str(tmp_path)
    yield name
    for process in psutil.process_iter():
        try:
            if process.environ().get("SDO_TEST_MARK") == name:
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def type_in(text: str, home: Path, installed: Path, mark: str) -> None:
    """Have a shell run what a page says."""
    port = re.search(r"--dashboard-port=(\d+)", (home.parent / "shims/ray").read_text())
    assert port is not None
    # What stands for something of the reader's.
    text = text.replace("HEAD:8265", f"127.0.0.1:{port[1]}").replace("/shared/runs", str(home / "shared"))
    environment = {name: os.environ[name] for name in ("MKL_CBWR", "OMP_NUM_THREADS") if name in os.environ}
    environment |= {"HOME": str(home), "PATH": f"{home.parent}/shims:{installed}:/usr/bin:/bin", "SDO_TEST_MARK": mark}
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", text],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    print(done.stdout)


def text_of(page: str) -> str:
    """What is typed of a page, and before it."""
    return "\n".join([*BEFORE.get(page, ()), *(block.typed for block in RUN[page])])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", sorted(page for page, blocks in RUN.items() if blocks))
def test_a_page_is_typed(page: str, home: Path, installed: Path, mark: str) -> None:
    if page == FIRST_HOUR:
        save_model("sdxl", home / "models/sdxl")
    type_in(text_of(page), home, installed, mark)


OTHER_MODELS = {
    "sd35-medium": {
        '"export/warm/warm.safetensors"': '"runs/warm/adapter/pytorch_lora_weights.safetensors"',
        "from_pretrained(sys.argv[1])": "from_pretrained(sys.argv[1], text_encoder_3=None, tokenizer_3=None)",
    },
    # diffusers reads single blocks in the file for other programs at the published size only.
    "flux1-dev": {"alpha: 8.0}": "alpha: 8.0, targets: [to_out.0, add_q_proj, add_k_proj, add_v_proj]}"},
    "wan21-1.3b": {
        "weight: 1.0}": "weight: 1.0, frames: 2}",
        "{name: brightness}": "{name: brightness, frames: 2}",
        "width: 64}": "width: 64, num_frames: 5}",
        "--width 64": "--width 64 --set num_frames=5",
        "width=64, generator": "width=64, num_frames=5, generator",
    },
}
"""What the page's table says of models but SDXL, by recipe: what stands there -> what is typed."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("recipe", OTHER_MODELS)
def test_the_first_hour_with_other_models(recipe: str, home: Path, installed: Path, mark: str) -> None:
    save_model(recipe, home / "models/sdxl")
    text = text_of(FIRST_HOUR)
    for said, typed in OTHER_MODELS[recipe].items():
        assert said in text
        text = text.replace(said, typed)
    type_in(text, home, installed, mark)
