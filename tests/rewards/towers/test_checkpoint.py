import hashlib
import os
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging

from rewards import create
from rewards.scoring import score
from rewards.towers.checkpoint import check_source, describe, describe_folder, find_file, load_strict, read_tensors

from ..tiny.cases import CASES
from ..tiny.clip import save_clip_model


# On CLIP, on an audio network, on a vision-language model: transformers has a bar for each, and advice.
@pytest.mark.parametrize("name", ["clip_score", "clap_score", "image_similarity", "vqa_score"])
def test_loading_a_reward_says_nothing(name, tmp_path, capfd):
    options = CASES[name].options(tmp_path)
    logging.enable_progress_bar()
    capfd.readouterr()
    create(CASES[name].path or name, **options)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"epoch": 3, "state_dict": t}, lambda t: {"model": t}])
def test_tensors_of_a_checkpoint_of_torch(wrap, tmp_path):
    torch.save(wrap({"a": torch.ones(2)}), tmp_path / "c.pt")
    assert read_tensors(tmp_path / "c.pt")["a"].tolist() == [1, 1]


def test_tensors_of_safetensors(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "c.safetensors")
    assert read_tensors(tmp_path / "c.safetensors")["a"].tolist() == [1, 1]


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Runs()}, "c.pt")
    with pytest.raises(Exception, match=r"(?i)weights.only"):
        read_tensors(Path("c.pt"))
    assert not Path("ran").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path):
    torch.save({"a": 3}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="must hold tensors by name"):
        read_tensors(tmp_path / "c.pt")


def test_other_keys_and_shapes_are_refused():
    with init_empty_weights():
        module = nn.Linear(2, 3)
    good = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    with pytest.raises(ValueError, match=r"1 keys are missing \(bias\) and 0 are unknown"):
        load_strict(module, {"weight": good["weight"]}, "it")
    with pytest.raises(ValueError, match=r"0 keys are missing \(none\) and 1 are unknown \(scale\)"):
        load_strict(module, good | {"scale": torch.ones(1)}, "it")
    with pytest.raises(ValueError, match=r"weight is \[2, 3\], not \[3, 2\]"):
        load_strict(module, good | {"weight": torch.ones(2, 3)}, "it")
    loaded = load_strict(module, good, "it")
    assert loaded.weight is not good["weight"]
    assert loaded(torch.ones(1, 2)).tolist() == [[3, 3, 3]]
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_constants_that_older_versions_saved_are_left_out(tmp_path):
    folder = save_clip_model(tmp_path)
    before = score(create("clip_score", source=str(folder)), torch.ones(1, 3, 16, 16), ["a"])
    tensors = read_tensors(folder / "model.safetensors")
    tensors |= {f"{half}_model.embeddings.position_ids": torch.arange(12)[None] for half in ("text", "vision")}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(score(create("clip_score", source=str(folder)), torch.ones(1, 3, 16, 16), ["a"]), before)


def test_sources(tmp_path):
    file = tmp_path / "weights.pt"
    file.write_bytes(b"abc")
    check_source("source", str(tmp_path))
    check_source("source", "openai/clip-vit-large-patch14")
    for wrong in ("./nowhere", "/nowhere/at/all", "clip", "a/b/c"):
        with pytest.raises(ValueError, match="option 'source'"):
            check_source("source", wrong)
    assert find_file(str(tmp_path), "weights.pt") == find_file(str(file), "other.pt") == file
    with pytest.raises(FileNotFoundError, match=r"no file 'other.pt'"):
        find_file(str(tmp_path), "other.pt")
    found = describe(str(file), file)
    assert (found.source, found.revision) == (str(file), None)
    assert found.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_the_hubs_commit_is_the_revision(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"abc")
    assert describe_folder("a/b", snapshot).revision == "0123abcd"
    with pytest.raises(FileNotFoundError, match="no safetensors in"):
        describe_folder("a/b", tmp_path)


def test_a_model_of_other_shapes_or_keys_is_refused(tmp_path):
    folder = save_clip_model(tmp_path)
    tensors = read_tensors(folder / "model.safetensors")
    for change in ({"visual_projection.weight": torch.zeros(9, 8)}, {"extra": torch.zeros(1)}):
        save_file({**tensors, **change}, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"no checkpoint of CLIPModel.*{next(iter(change))}"):
            create("clip_score", source=str(folder))
    del tensors["logit_scale"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="logit_scale"):
        create("clip_score", source=str(folder))
