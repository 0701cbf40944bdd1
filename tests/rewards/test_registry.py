import subprocess
import sys

import pytest
import torch

import rewards.registry
from rewards import available, check, create, import_path, register, spec_of
from rewards.registry import Reward, RewardError, built_in, path_options, rename_options

from .tiny.cases import CASES


class Brightness:
    """A reward of one's own, as the documentation shows it."""

    differentiable = True

    def __init__(self, *, gain: float = 1.0, channel: int | None = None) -> None:
        self.gain, self.channel = gain, channel

    def __call__(self, images, prompts):
        shown = images if self.channel is None else images[:, [self.channel]]
        return self.gain * shown.mean((1, 2, 3))


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(rewards.registry, "_registered", {})


def test_importing_the_package_imports_no_torch():
    code = "import sys, rewards; rewards.available(); sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", built_in())
def test_built_in_rewards_are_there_and_check_with_what_they_need(name, tmp_path):
    assert name in available()
    check(name, CASES[name].options(tmp_path), CASES[name].prompts)
    assert import_path(name) == built_in()[name]


def test_heldout_evaluators_say_so():
    assert {name for name in built_in() if spec_of(name).heldout} == {"heldout_alignment", "heldout_preference"}


def test_unknown_name_lists_what_there_is():
    with pytest.raises(RewardError, match=r"did you mean 'preference'.*alignment.*jpeg_compressibility.*import path"):
        check("preferense", {})


def test_unknown_option_lists_the_options():
    with pytest.raises(RewardError, match="no option 'qualty'; it has quality"):
        check("jpeg_compressibility", {"qualty": 50})


@pytest.mark.parametrize("quality", [True, "95", 95.0, None])
def test_option_of_another_type(quality):
    with pytest.raises(RewardError, match=r"'quality'.*must be int, got"):
        check("jpeg_compressibility", {"quality": quality})


def test_checking_loads_no_weights(monkeypatch):
    monkeypatch.setattr("rewards.preference.load_head", pytest.fail)
    check("preference", {"device": "cuda"})


def test_own_reward_by_decorator():
    register("own_brightness")(Brightness)
    assert "own_brightness" in available()
    reward = create("own_brightness", gain=2)  # a whole number is a float
    assert isinstance(reward, Reward)
    assert reward(torch.ones(2, 3, 4, 4), ["", ""]).tolist() == [2, 2]
    assert vars(create(import_path("own_brightness"), channel=1))["channel"] == 1


def test_classes_that_other_processes_cannot_import():
    class Local(Brightness): ...

    register("local")(Local)
    with pytest.raises(RewardError, match="no other process can import; move it to a module"):
        import_path("local")


def test_registering_twice():
    register("own_brightness")(Brightness)
    register("own_brightness")(Brightness)  # the module was loaded again
    for name in ("own_brightness", "preference"):
        with pytest.raises(RewardError, match="is taken by"):
            register(name)(type("Other", (Brightness,), {}))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module:Reward", "no module 'no_such_module'"),
        ("rewards.terms:Mixture", "has no 'Mixture'; its classes are RewardTerm"),
        ("rewards.mix:usable", "must be a class"),
        ("rewards.terms:RewardTerm", "needs __call__"),
        ("rewards.features:ImageFeatures", "needs the class attribute `differentiable`"),
    ],
)
def test_import_paths_that_lead_to_no_reward(path, message):
    with pytest.raises(RewardError, match=message):
        check(path, {})


def test_a_module_that_misses_something_itself_says_what(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RewardError, match=r"cannot be imported here: No module named 'not_installed_anywhere'; install"
    ):
        check("needs_more:Reward", {})


@pytest.mark.parametrize(
    ("code", "said"),
    [("class Mine(:", "SyntaxError: invalid syntax"), ("raise SystemError('no licence')", "SystemError: no licence")],
)
def test_module_that_fails_at_import(code, said, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RewardError, match=f"reward 'broken:Mine': its module cannot be imported: {said}.*mend it"):
        check("broken:Mine", {})


def test_required_option():
    class Needs(Brightness):
        def __init__(self, *, path: str) -> None: ...

    register("needs")(Needs)
    with pytest.raises(RewardError, match="needs the option path; given: none"):
        check("needs", {})


def test_values_are_checked_on_construction():
    with pytest.raises(ValueError, match="quality must be 1 to 95, got 0"):
        create("jpeg_compressibility", quality=0)


def test_missing_weights_name_those_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*there are .*preference\.safetensors"):
        create("preference", weights=str(tmp_path / "none.safetensors"))


class Picky:
    differentiable = True

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power

    @classmethod
    def check_use(cls, prompts, *, power=1.0):
        if power <= 0:
            raise ValueError(f"power must be positive, got {power}")
        if "dragon" in prompts:
            raise ValueError("it knows no dragons")

    def __call__(self, images, prompts):
        return images.mean((1, 2, 3)) ** self.power


def test_a_reward_refuses_what_it_cannot_work_with():
    check(f"{__name__}:Picky", {"power": 2.0}, ["cat", "dog"])
    with pytest.raises(RewardError, match=r"Picky': power must be positive, got -1.0"):
        check(f"{__name__}:Picky", {"power": -1.0})
    with pytest.raises(RewardError, match="it knows no dragons"):
        check(f"{__name__}:Picky", {}, ["cat", "dragon"])
    with pytest.raises(RewardError, match="power must be positive"):
        create(f"{__name__}:Picky", power=-1.0)


def test_options_by_the_names_that_they_had_before():
    assert rename_options("gram_style", {"picture": "a.png", "size": 64}) == {"image": "a.png", "size": 64}
    assert rename_options("gram_style", {"image": "a.png"}) == {"image": "a.png"}
    assert rename_options("no.such.module:Reward", {"picture": 1}) == {"picture": 1}
    with pytest.raises(RewardError, match="picture and image are one option of reward 'gram_style'; give it once"):
        rename_options("gram_style", {"picture": "a.png", "image": "b.png"})


class OddlyDescribed(Brightness):
    licence = 3


def test_what_a_class_says_of_itself_is_checked():
    with pytest.raises(RewardError, match="class attribute `licence` must be str, got 3"):
        check(f"{__name__}:OddlyDescribed", {})


def test_options_that_are_files():
    assert path_options("gram_style") == {"image", "picture"}
    assert path_options("heldout_preference") == {"weights"}
    assert path_options("layout") == path_options("no.such.module:Reward") == set()
