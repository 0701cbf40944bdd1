"""Batches that fail: tried again, made in halves, skipped, or the end of the run."""

from collections.abc import Callable

import pytest
import torch
from ray.exceptions import RayTaskError

from rewards.scoring import RewardMistake
from sdo_ray.rollout.attempts import PAUSES, Attempts
from sdo_ray.rollout.gradient import Gradient
from sdo_ray.rollout.records import Contribution, PromptBatch, Seconds
from sdo_ray.rollout.replica import RewardFailed
from sdo_ray.rollout.watch import BatchFailed

BATCH = PromptBatch(2, (8, 9, 10, 11), tuple("abcd"))


def made(batch: PromptBatch) -> Contribution:
    """A contribution in which every row is found again."""
    rows = [float(row) for row in batch.rows]
    return Contribution(
        update=batch.update,
        policy_version=2,
        first_row=batch.rows[0],
        num_samples=len(rows),
        num_skipped=0,
        scores={"ink": rows},
        mixed=rows,
        step_norms={1: 3.0} if batch.rows[0] < 10 else {1: 4.0, 2: 1.0},
        seconds=Seconds(1.0, 2.0, 3.0),
        gradient=Gradient.of({"w": torch.tensor([sum(rows), 1.0])}),
    )


class Maker:
    """Makes a batch after it has raised what `fails` says, for each of its calls in turn."""

    def __init__(self, fails: Callable[[PromptBatch, int], Exception | None]) -> None:
        self.fails, self.calls, self.pauses = fails, list[PromptBatch](), list[float]()
        self.said: list[str] = []
        self.attempts = Attempts(self.make, lambda: 1, self.said.append, self.pauses.append)

    def make(self, batch: PromptBatch) -> Contribution:
        self.calls.append(batch)
        if (error := self.fails(batch, len(self.calls))) is not None:
            raise error
        return made(batch)


def test_what_passes_is_tried_again_with_longer_pauses() -> None:
    maker = Maker(lambda _, call: OSError("no answer") if call < 3 else None)
    assert maker.attempts(BATCH).mixed == made(BATCH).mixed
    assert maker.pauses == list(PAUSES)
    assert maker.said == [
        f"update 3, rows 8 to 11: OSError: no answer; it is tried again in {pause:g} s" for pause in PAUSES
    ]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError("no\n answer from http://ann:hunter2@host"), "OSError: no answer from http://***host"),
        (RewardFailed("ink", "died 3 times", BATCH.prompts), "reward 'ink' died 3 times, at the prompts 'a', 'b', 'c'"),
    ],
)
def test_what_does_not_is_skipped_and_counted_once_anything_was_made(error: Exception, cause: str) -> None:
    maker = Maker(lambda batch, _: error if batch is BATCH else None)
    maker.attempts(PromptBatch(2, (0,), ("x",)))
    skipped = maker.attempts(BATCH)
    assert (skipped.num_samples, skipped.num_skipped, skipped.first_row) == (0, 4, 8)
    assert not skipped.gradient
    assert (skipped.scores, skipped.mixed) == ({}, [])
    assert skipped.failure is not None
    assert skipped.failure.startswith(cause)
    assert skipped.policy_version == 1
    assert maker.said[-1] == f"update 3, rows 8 to 11: {skipped.failure}; it is skipped"
    # What the pool has tried again itself is not tried again here.
    assert len(maker.pauses) == (0 if isinstance(error, RewardFailed) else len(PAUSES))


def test_a_sampler_that_has_made_nothing_ends_the_run() -> None:
    maker = Maker(lambda *_: ValueError("this cannot be"))
    with pytest.raises(BatchFailed, match=r"^update 3, rows 8 to 11: ValueError: this cannot be$"):
        maker.attempts(BATCH)


@pytest.mark.parametrize(
    "error", [RewardMistake("reward Ink must return a tensor"), RewardFailed("ink", "died; 3 restarts did not help")]
)
def test_what_will_not_change_ends_the_run_at_once(error: Exception) -> None:
    maker = Maker(lambda batch, _: error if batch is BATCH else None)
    maker.attempts(PromptBatch(2, (0,), ("x",)))
    with pytest.raises(BatchFailed, match=r"^update 3, rows 8 to 11: .*(Ink|ink)"):
        maker.attempts(BATCH)
    assert not maker.pauses


def of_a_reward(cause: Exception) -> Exception:
    """As it comes from a reward's actor."""
    text = f"Traceback ...\n{type(cause).__name__}: {cause}"
    error: Exception = RayTaskError("score", text, cause).as_instanceof_cause()
    return error


def of_the_cpu() -> Exception:
    """Of more memory than there is anywhere."""
    try:
        torch.empty(2**55)
    except RuntimeError as error:
        return error
    raise AssertionError


SHORT = (torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("Out of memory"), of_the_cpu())


@pytest.mark.parametrize("error", [*SHORT, *map(of_a_reward, SHORT)])
def test_short_of_memory_a_batch_is_made_in_halves(error: Exception) -> None:
    maker = Maker(lambda batch, _: error if len(batch.rows) > 2 else None)
    whole, expected = maker.attempts(BATCH), made(BATCH)
    assert [batch.rows for batch in maker.calls] == [(8, 9, 10, 11), (8, 9), (10, 11)]
    assert [batch.prompts for batch in maker.calls] == [tuple("abcd"), tuple("ab"), tuple("cd")]
    assert not maker.pauses
    assert (whole.first_row, whole.num_samples, whole.num_skipped) == (8, 4, 0)
    assert (whole.scores, whole.mixed) == (expected.scores, expected.mixed)
    assert whole.gradient["w"].tolist() == [sum(BATCH.rows), 2.0]
    assert whole.step_norms == {1: 5.0, 2: 1.0}
    assert whole.seconds == Seconds(2.0, 4.0, 6.0)
    assert (whole.failure, whole.num_splits) == (None, 1)


def test_one_image_too_large_is_skipped_and_the_others_count() -> None:
    maker = Maker(lambda batch, _: MemoryError() if 9 in batch.rows else None)
    whole = maker.attempts(BATCH)
    assert (whole.num_samples, whole.num_skipped) == (3, 1)
    assert whole.scores == {"ink": [8.0, None, 10.0, 11.0]}
    assert whole.gradient["w"].tolist() == [8.0 + 21.0, 2.0]
    assert (whole.failure, whole.num_splits) == ("MemoryError", 2)
