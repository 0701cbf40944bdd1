"""A whole run whose steps without a graph are cheap: what it compares, registers and serves are images made so."""

from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest

from sdo_ray.config.roles import find_roles
from sdo_ray.evaluation.settings import ModelsSettings
from sdo_ray.media.picture import open_image
from sdo_ray.registry.versions import recipe_beside, resolve_model
from sdo_ray.rollout.settings import SamplingSettings
from sdo_ray.settings import SettingsError
from tests.support.runs import AlignProcess, tiny_settings

CHEAP = {"cache": {"name": "taylor", "every": 2, "last": 0}, "fast_copy": {"dtype": "bfloat16"}}
EXACT = SamplingSettings(num_inference_steps=4, guidance_scale=2.0)


@pytest.mark.slow
def test_a_run_with_cheap_steps_is_served_as_it_was_compared(tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path,
        tiny_base,
        sampling=CHEAP,
        samplers={"count": 1},
        training={"updates": 2, "batch_size": 2},
        trainers={"count": 1},
        evaluation={"cheap_steps": True},
        tracking={"register_as": "cheap", "preview_every": 1},
    )
    with AlignProcess(str(settings)) as run:
        said = run.finish()
    assert "2/2" in said
    runs, uri = tmp_path / "runs", f"sqlite:///{tmp_path}/runs/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    compared = pq.read_table(runs / "tiny/heldout.parquet").to_pydict()

    # The registered model draws the images of the comparison, to the bit; with exact steps it would draw others.
    shown = [open_image(png) for png in compared["aligned"]]
    model = mlflow.pyfunc.load_model("models:/cheap/1")
    assert [open_image(png) for png in model.predict(model.input_example)["picture"]] == shown
    served = model.unwrap_python_model()
    served._images = lambda **call: served._pipeline(**call).images
    assert [open_image(png) for png in model.predict(model.input_example)["picture"]] != shown

    # Its recipe says so, and nobody measures it otherwise.
    recipe = recipe_beside(resolve_model("models:/cheap/1", uri))
    sampling = SamplingSettings.model_validate(EXACT.to_dict() | CHEAP)
    assert SamplingSettings.model_validate({"cache": recipe.cache}).cache == sampling.cache
    models = ModelsSettings.model_validate({"base": str(tiny_base), "candidate": "models:/cheap/1"})
    assert find_roles(models, sampling, uri).keys() == {"base", "candidate"}
    with pytest.raises(SettingsError, match=r"sampling\.cache: got none, and models:/cheap/1 is served with"):
        find_roles(models, EXACT, uri)
