"""Who samples what, and what samplers died of."""

import subprocess
import sys

from sdo_ray.rollout.watch import START, WatchActor


def test_what_is_waited_for() -> None:
    watch = WatchActor()
    watch.begin("a", START, "its start")
    watch.begin("b", START, "its start")
    watch.end("a", START)
    watch.begin("a", 0, "update 1, rows 0 to 3")
    watch.begin("a", 4, "update 1, rows 4 to 7")
    assert list(watch.waiting()) == [
        "sampler 2 at its start",
        "sampler 1 at update 1, rows 0 to 3",
        "sampler 1 at update 1, rows 4 to 7",
    ]
    watch.end("a", 0)
    watch.end("b", START)
    assert list(watch.waiting()) == ["sampler 1 at update 1, rows 4 to 7"]


def test_a_sampler_that_starts_again_has_died_at_all_that_it_had_in_hand() -> None:
    watch = WatchActor()
    for row in (0, 4):
        assert watch.begin("a", row, f"rows {row}") == 0
    assert watch.begin("a", START, "its start") == 0
    assert watch.waiting().keys() == {"sampler 1 at its start"}
    assert watch.news() == [
        "sampler 1 died at rows 0; death 1 of 3 there",
        "sampler 1 died at rows 4; death 1 of 3 there",
    ]
    assert watch.news() == []
    # Again, and by another sampler, which has not died yet.
    assert watch.begin("a", 0, "rows 0") == 1
    assert watch.begin("b", 0, "rows 0") == 2
    # The one that went well is no longer blamed.
    watch.begin("a", 4, "rows 4")
    watch.end("a", 4)
    assert watch.begin("a", 4, "rows 4") == 0


def test_deaths_at_the_start_add_up_until_one_has_started() -> None:
    watch = WatchActor()
    assert [watch.begin(sampler, START, "its start") for sampler in "aabab"] == [0, 1, 1, 2, 3]
    watch.end("a", START)
    assert watch.begin("c", START, "its start") == 0


def test_a_new_stream_starts_with_nothing() -> None:
    watch = WatchActor()
    watch.begin("a", 0, "rows 0")
    watch.reset()
    assert watch.waiting() == {}
    assert watch.begin("b", 0, "rows 0") == 0


def test_a_sampler_that_is_not_heard_of_is_lost_with_what_it_has_in_hand() -> None:
    now = [0.0]
    watch = WatchActor(lambda: now[0])
    for sampler in "abc":
        watch.begin(sampler, START, "its start")
    for sampler in "ab":
        watch.end(sampler, START)
    watch.begin("a", 0, "rows 0")
    watch.begin("b", 4, "rows 4")
    watch.begin("b", 8, "rows 8")
    now[0] = 200.0
    watch.touch("a")
    assert watch.lost(300.0) == []
    now[0] = 310.0  # "c" still starts: it has nothing that others could be given
    expected = [f"sampler 2 at rows {row}, not heard of for 310 s" for row in (4, 8)]
    assert watch.lost(300.0) == expected
    assert watch.news()[-1].endswith(
        "rows 8, not heard of for 310 s: others are given its work, from the newest checkpoint on (loss 1 of this run)"
    )
    assert watch.lost(300.0) == expected  # another trainer asks
    assert watch.news() == []
    watch.reset()
    assert watch.lost(300.0) == []


def test_one_that_has_found_a_place_again_is_not_lost() -> None:
    now = [0.0]
    watch = WatchActor(lambda: now[0])
    watch.begin("a", 0, "rows 0")
    now[0] = 400.0
    watch.begin("a", START, "its start")
    assert watch.lost(300.0) == []


def test_the_first_says_what_all_have_to() -> None:
    watch = WatchActor()
    assert watch.agree("weights", "a", "1") == ("a", "1")
    assert watch.agree("weights", "b", "2") == ("a", "1")
    assert watch.agree("policy", "b", "2") == ("b", "2")
    watch.reset()
    assert watch.agree("weights", "b", "2") == ("b", "2")


def test_what_takes_too_long_ends_its_process_and_leaves_its_stacks() -> None:
    code = """
import time
from sdo_ray.rollout.deadline import deadline
with deadline(60, "the first"):
    pass
with deadline(0.2, "the second"):
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "the second has taken longer than 0.2 s; this process ends" in done.stderr
    assert 'File "<string>", line 7 in <module>' in done.stderr
