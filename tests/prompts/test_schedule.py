"""Which row of a run gets which prompt."""

from collections import Counter

from sdo_ray.prompts.schedule import schedule
from sdo_ray.rollout.records import PromptBatch

PROMPTS = [f"prompt {i}" for i in range(7)]


def rows_of(batch_size: int, sampler_batch_size: int, start: int = 0, stop: int = 6, seed: int = 5) -> dict[int, tuple]:
    """Row -> (update, prompt)."""
    found = {}
    for block in schedule(
        PROMPTS, seed=seed, batch_size=batch_size, sampler_batch_size=sampler_batch_size, start=start, stop=stop
    ):
        batch = PromptBatch.from_arrow(block)
        assert len(batch.rows) == sampler_batch_size
        found |= {row: (batch.update, prompt) for row, prompt in zip(batch.rows, batch.prompts, strict=True)}
    return found


def test_every_prompt_once_an_epoch_and_in_another_order_each() -> None:
    rows = rows_of(batch_size=7, sampler_batch_size=7)
    epochs = [[rows[row][1] for row in range(7 * e, 7 * e + 7)] for e in range(6)]
    assert all(sorted(epoch) == PROMPTS for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_rows_do_not_depend_on_how_batches_are_cut() -> None:
    whole, halves, single = (rows_of(4, size) for size in (4, 2, 1))
    assert whole == halves == single
    assert Counter(update for update, _ in whole.values()) == dict.fromkeys(range(6), 4)
    # The updates' size moves rows to other updates and changes no prompt.
    other = rows_of(8, 2, stop=3)
    assert {row: prompt for row, (_, prompt) in other.items()} == {row: prompt for row, (_, prompt) in whole.items()}


def test_a_resumed_schedule_is_the_rest_of_the_unbroken_one() -> None:
    unbroken, resumed = rows_of(4, 2), rows_of(4, 2, start=3)
    assert resumed == {row: what for row, what in unbroken.items() if what[0] >= 3}


def test_another_seed_is_another_order() -> None:
    assert rows_of(4, 2, seed=5) == rows_of(4, 2, seed=5)
    assert rows_of(4, 2, seed=5) != rows_of(4, 2, seed=6)
