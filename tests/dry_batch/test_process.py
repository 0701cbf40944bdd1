"""Work in a process of its own: what it gives, raises, and dies of; without a GPU, in a new process too."""

import os
import signal
from collections.abc import Callable

import pytest
import torch

from sdo_ray.dry_batch.process import Died, apart

Say = Callable[[str], None]


def visible(say: Say) -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


def killed(say: Say) -> None:
    say("rewards")
    os.kill(os.getpid(), signal.SIGKILL)


def wrong(say: Say) -> None:
    raise ValueError("no such thing")


@pytest.mark.parametrize("cuda", [False, True], ids=["copied", "new, where there is CUDA"])
def test_it_sees_no_gpu(cuda: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert apart(visible, 60) == ""
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_what_it_raises_and_dies_of() -> None:
    with pytest.raises(ValueError, match="no such thing"):
        apart(wrong, 60)
    with pytest.raises(Died, match="rewards: the process died of SIGKILL"):
        apart(killed, 60)
