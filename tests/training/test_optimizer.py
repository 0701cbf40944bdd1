"""The optimizer and its step size, against plain loops and closed forms."""

import math

import pytest
import torch
from pydantic import ValidationError

from sdo_ray.training.averaging import Average
from sdo_ray.training.optimizer import learning_rate, make_optimizer, pull_back
from sdo_ray.training.settings import ScheduleSettings, TrainingSettings


def parameter(start: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(start.clone())


def gradients(steps: int) -> list[torch.Tensor]:
    noise = torch.Generator().manual_seed(1)
    return [torch.randn(5, generator=noise) for _ in range(steps)]


def test_decay_to_zero_is_that_of_adamw() -> None:
    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    ours, torchs = parameter(start), parameter(start)
    optimizer, expected = make_optimizer("adamw", [ours], 0.1), torch.optim.AdamW([torchs], 0.1, weight_decay=0.3)
    with torch.no_grad():
        ours.zero_()
        pull_back(optimizer, [ours], 0.3)
        ours.copy_(start)
    for gradient in gradients(5):
        ours.grad, torchs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        expected.step()
    torch.testing.assert_close(ours, torchs)


def test_decay_is_that_of_the_way_from_the_start() -> None:
    """The optimizer of p - p0 with decay to zero makes the same steps."""
    start = torch.full((5,), 3.0)
    ours, moved = parameter(start), parameter(torch.zeros(5))
    optimizer, expected = make_optimizer("adamw", [ours], 0.1), torch.optim.AdamW([moved], 0.1, weight_decay=0.3)
    pull_back(optimizer, [ours], 0.3)
    for gradient in gradients(8):
        ours.grad, moved.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        expected.step()
    torch.testing.assert_close(ours - start, moved)
    # Without gradients it comes back in a straight line.
    before = ours.detach() - start
    ours.grad, optimizer.state[ours]["exp_avg"] = torch.zeros(5), torch.zeros(5)
    optimizer.step()
    torch.testing.assert_close(ours.detach() - start, before * (1 - 0.1 * 0.3))


def test_lion_steps_by_the_sign_of_its_blend() -> None:
    """With momentum m: p -= lr sign(0.9 m + 0.1 g), then m = 0.99 m + 0.01 g (arXiv 2302.06675, algorithm 2)."""
    pytest.importorskip("bitsandbytes")
    ours, expected, momentum = parameter(torch.ones(5)), torch.ones(5), torch.zeros(5)
    optimizer = make_optimizer("lion", [ours], 0.1)
    for gradient in gradients(6):
        ours.grad = gradient.clone()
        optimizer.step()
        expected = expected - 0.1 * (0.9 * momentum + 0.1 * gradient).sign()
        momentum = 0.99 * momentum + 0.01 * gradient
    torch.testing.assert_close(ours.detach(), expected)


def test_without_decay_it_is_adamw_to_the_bit() -> None:
    ours, torchs = parameter(torch.ones(5)), parameter(torch.ones(5))
    optimizer, expected = (
        make_optimizer("adamw", [ours], 0.1),
        torch.optim.AdamW([torchs], 0.1, weight_decay=0, fused=True),
    )
    pull_back(optimizer, [ours], 0.0)
    for gradient in gradients(3):
        ours.grad, torchs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        expected.step()
    assert torch.equal(ours, torchs)


def rates(updates: int, **schedule: object) -> list[float]:
    training = TrainingSettings(learning_rate=2.0, schedule=ScheduleSettings(**schedule))
    return [learning_rate(training, update) for update in range(updates)]


def test_step_sizes_in_closed_form() -> None:
    assert rates(3) == [2.0] * 3
    assert rates(6, warmup=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert rates(8, warmup=2, decay="linear", until=6, floor=0.5) == [1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
    cosine = rates(11, decay="cosine", until=10)
    assert cosine[0] == 2.0
    assert cosine[5] == pytest.approx(1.0)
    assert cosine[10] == pytest.approx(0.0)
    assert cosine[2] == pytest.approx(1 + math.cos(math.pi / 5))


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ({"decay": "cosine"}, "until is 0, and has to be above warmup = 0"),
        ({"decay": "linear", "warmup": 5, "until": 5}, "has to be above warmup = 5"),
        ({"until": 5}, "choose linear or cosine"),
        ({"floor": 0.1}, "choose linear or cosine"),
    ],
)
def test_schedules_that_cannot_be(schedule: dict, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        ScheduleSettings(**schedule)


def test_an_average_of_constant_weights_is_the_weights_and_of_others_a_geometric_sum() -> None:
    first = {"a": torch.randn(3), "b": torch.randn(2, 2)}
    average = Average(first, 0.9)
    for update in range(10):
        average.add(first, update + 1)
    assert all(torch.equal(average.weights[name], first[name]) for name in first)
    policies = [torch.randn(3) for _ in range(4)]
    average = Average({"a": policies[0]}, 0.5)
    for update, policy in enumerate(policies[1:]):
        average.add({"a": policy}, update + 1)
    expected = policies[0] / 8 + policies[1] / 8 + policies[2] / 4 + policies[3] / 2
    torch.testing.assert_close(average.weights["a"], expected)
    newest = Average({"a": policies[0]}, 0.0)
    newest.add({"a": policies[1]}, 1)
    assert torch.equal(newest.weights["a"], policies[1])
    late = Average({"a": policies[0]}, "late")
    late.add({"a": policies[1]}, 75)
    assert torch.equal(late.weights["a"], policies[1])
    late.add({"a": policies[2]}, 95)
    torch.testing.assert_close(late.weights["a"], 0.15 * policies[1] + 0.85 * policies[2])
