"""A column of the prompts' file that weighs a reward."""

import pytest

from sdo_ray.config.rewards import refuse_row_weights
from sdo_ray.prompts.inputs import (
    Prompts,
    call_arguments,
    check_weights,
    kinds_of,
    read_inputs,
    weights_of,
    with_weights,
)
from sdo_ray.rollout.reward_settings import RewardSettings
from sdo_ray.settings import SettingsError


def test_it_reaches_rewards_and_no_call(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("prompt,text,how_much\na,x,2\nb,y,0\n")
    rows = read_inputs(str(file), "prompt", with_weights({"prompt_2": "text"}, ["how_much", None]))
    check_weights(rows, ["how_much", None])
    assert weights_of(Prompts(["a", "b"], rows), "how_much") == (2.0, 0.0)
    assert call_arguments(rows) == {"prompt_2": ["x", "y"]}
    assert kinds_of(rows[0]) == {"prompt_2": "text"}
    with pytest.raises(ValueError, match="came without column 'other'"):
        weights_of(Prompts(["a", "b"], rows), "other")
    with pytest.raises(ValueError, match="came without column 'how_much'"):
        weights_of(["a", "b"], "how_much")


@pytest.mark.parametrize(
    ("values", "said"), [("1,-2", "has -2.0"), ("1,much", "has '1'"), ("0,0", "has nothing but 0")]
)
def test_what_is_no_weight_is_refused(tmp_path, values, said):
    one, other = values.split(",")
    (tmp_path / "train.csv").write_text(f"prompt,w\na,{one}\nb,{other}\n")
    rows = read_inputs(str(tmp_path / "train.csv"), "prompt", with_weights({}, ["w"]))
    with pytest.raises(SettingsError, match=f"column 'w', by which a reward is weighed, {said}"):
        check_weights(rows, ["w"])


def test_where_rows_are_not_weighed_it_is_refused():
    refuse_row_weights([RewardSettings(name="brightness")])
    with pytest.raises(SettingsError, match=r"0.weigh_by: got 'w', and rows are weighed by `sdo align` alone"):
        refuse_row_weights([RewardSettings(name="brightness", weigh_by="w")])
