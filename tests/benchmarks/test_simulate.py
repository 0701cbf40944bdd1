"""The simulation of a run, where its numbers can be had by hand."""

from dataclasses import replace

import pytest

from benchmarks.simulate import Layout, Times, simulate

TIMES = Times(sampling=3.0, reward=2.0, backward=1.0, adding=0.1, step=0.5)


def test_one_of_each_and_one_batch_in_hand_is_one_thing_after_the_other() -> None:
    found = simulate(TIMES, Layout(1, 4, in_flight=1, max_policy_lag=0))
    # Adding goes on beside the next batch, but for the last.
    assert found.seconds == pytest.approx(4 * (3 + 2 + 1) + 0.1 + 0.5)
    assert found.samplers_idle == pytest.approx(1 - 4 * (3 + 1) / found.seconds)
    assert found.trainers_idle == pytest.approx((found.seconds - 4 * 0.1 - 0.5) / found.seconds)


def test_with_lag_and_two_batches_in_hand_a_sampler_never_waits() -> None:
    found = simulate(TIMES, Layout(1, 4, in_flight=2, max_policy_lag=1))
    assert found.seconds == pytest.approx(4 * (3 + 1))
    assert found.samplers_idle == pytest.approx(0.0, abs=1e-9)


def test_a_reward_that_is_slower_than_all_samplers_is_what_counts() -> None:
    found = simulate(TIMES, Layout(8, 8, replicas=2, max_policy_lag=1))
    assert found.seconds == pytest.approx(8 * 2.0 / 2)


def test_what_a_sampler_does_besides_is_idle_and_what_travels_keeps_nobody() -> None:
    times = replace(TIMES, handing=0.5, travel=0.25)
    alone = simulate(times, Layout(1, 4, in_flight=1, max_policy_lag=0))
    assert alone.seconds == pytest.approx(4 * (3 + 2 + 0.25 + 1 + 0.5) + 0.1 + 0.5)
    busy = simulate(times, Layout(1, 4, in_flight=2, max_policy_lag=1))
    assert busy.seconds == pytest.approx(4 * (3 + 1 + 0.5))
    assert busy.samplers_idle == pytest.approx(0.5 / 4.5)
    rewarding = simulate(times, Layout(8, 8, replicas=2, max_policy_lag=1))
    assert rewarding.seconds == pytest.approx(8 * 2.0 / 2)


def test_more_samplers_than_batches_are_idle() -> None:
    found = simulate(TIMES, Layout(16, 4, replicas=16, max_policy_lag=0))
    assert found.seconds == pytest.approx(3 + 2 + 1 + 4 * 0.1 + 0.5)
    assert found.samplers_idle == pytest.approx(1 - 4 * (3 + 1) / (16 * found.seconds))


def test_a_trainer_that_is_slower_than_the_samplers_is_what_counts() -> None:
    slow = Times(sampling=1.0, reward=0.1, backward=1.0, adding=2.0, step=3.0)
    one, two = (simulate(slow, Layout(64, 8, replicas=64, trainers=count, max_policy_lag=1)) for count in (1, 2))
    assert one.seconds == pytest.approx(8 * 2.0 + 3.0)
    assert two.seconds == pytest.approx(4 * 2.0 + 3.0)
    assert one.trainers_idle == pytest.approx(0.0, abs=1e-9)
