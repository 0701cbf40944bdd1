"""2,000 prompts with three models at 512 pixels are held by a driver of 2 GB: images come some at a time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import REPOSITORY

CODE = """
import io, resource, sys
import numpy as np, pyarrow as pa
from PIL import Image
from sdo_ray.evaluation.metrics import frechet_yardsticks, image_metrics, pixel_distances, set_metrics
from sdo_ray.evaluation.parts import Parts
from sdo_ray.evaluation.report import render_report
from sdo_ray.evaluation.result import *
from sdo_ray.evaluation.settings import ReportSettings
from sdo_ray.evaluation.summary import as_numbers
from sdo_ray.promotion.rules import parse_rule
from sdo_ray.promotion.verdict import apply_rule
from sdo_ray.storage import RunDirectory

count, roles, draw = int(sys.argv[2]), ["base", "candidate", "champion"], np.random.default_rng(0)
smooth = np.linspace(0, 255, 512 * 512 * 3).reshape(512, 512, 3)
files = []
for _ in range(4):
    noisy, buffer = (smooth + draw.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(noisy).save(buffer, format="PNG", compress_level=1)
    files.append(buffer.getvalue())
questions = pa.table({
    "index": range(count), "prompt": [f"prompt {i}" for i in range(count)], "category": pa.nulls(count, pa.string())
})
run = RunDirectory(sys.argv[1], "run")
parts = Parts(run)
for block in parts.missing(roles, questions, 50):
    size = len(block)
    block = block.append_column("picture", [[files[i] for i in draw.integers(4, size=size)]])
    block = block.append_column("seconds", [[1.0] * size])
    block = block.append_column("score.quality", [draw.normal(size=size)])
    vectors = list(draw.normal(size=(size, 48)).astype(np.float32))
    parts.add(block.append_column("features", pa.array(vectors, pa.list_(pa.float32()))))
scores = parts.scores()
pixels = pixel_distances(parts.pictures(roles, questions), roles)
images = image_metrics(scores, roles, questions, pixels)
details = frechet_yardsticks(scores, roles)
evaluation = Evaluation("run", dict.fromkeys(roles, "x"), images, set_metrics(scores, roles, None), details)
render_report(first_with_pictures(evaluation, parts.pictures(roles, questions), 48), ReportSettings())
write_evaluation(run, evaluation, parts.pictures(roles, questions))
as_numbers(evaluation)
evaluation_sha256(run)
kept = read_evaluation(run, pictures=False)
apply_rule(parse_rule("quality > base, 95 % confidence"), kept)
print(sum(map(len, files)) // 4, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_of_a_large_evaluation(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), "2000"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    file, most = map(int, done.stdout.split())
    print(f"\nan image's file {file:,} bytes, the driver at most {most / 1e6:.2f} GB")
    assert file * 3 * 2000 > 2e9  # the files alone would not fit
    assert most * 1024 < 2e9
