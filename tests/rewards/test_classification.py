import pytest
import torch

from rewards import check, create
from rewards.fitting.images import read_images
from rewards.registry import RewardError

CLASSES = ["cat face", "rocket", "red apple", "pizza", "guitar", "cactus", "whale", "house", "bicycle", "hamburger"]


@pytest.fixture(scope="module")
def reward():
    return create("classification", classes=CLASSES)


@pytest.fixture(scope="module")
def known(table):
    """Both drawings of the classes, and what they show."""
    images = read_images(table, "train")
    rows = [i for i, label in enumerate(images.labels) if label in CLASSES]
    return images.images[rows], [images.labels[i] for i in rows]


def test_it_recognises_what_it_knows(reward, known):
    images, labels = known
    assert len(labels) >= 2 * len(CLASSES) - 2
    log_p = reward.log_probabilities(images)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(len(labels)))
    assert [CLASSES[i] for i in log_p.argmax(1)] == labels
    right = reward(images, labels)
    torch.testing.assert_close(right, log_p[range(len(labels)), [CLASSES.index(label) for label in labels]])
    assert right.exp().mean() > 0.8
    assert reward(images, ["rocket"] * len(labels)).exp().mean() < 0.2


def test_temperature_makes_it_more_or_less_sure(reward, known):
    images, labels = known
    sure = create("classification", classes=CLASSES, temperature=0.01)
    unsure = create("classification", classes=CLASSES, temperature=100.0)
    assert sure(images, labels).mean() > reward(images, labels).mean()
    torch.testing.assert_close(unsure(images, labels).exp(), torch.full((len(labels),), 0.1), rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("options", "prompts", "said"),
    [
        ({"classes": ["cat"]}, [], "option 'classes' must be two or more texts"),
        ({"classes": ["cat", ""]}, [], "option 'classes' must be two or more texts"),
        ({"classes": ["cat", 3]}, [], "option 'classes' must be two or more texts"),
        ({"classes": ["cat", "dog", "cat"]}, [], "option 'classes' has cat more than once"),
        ({"classes": ["cat", "dog"], "temperature": 0.0}, [], "option 'temperature' must be positive"),
        ({"classes": ["cat", "dog"]}, ["cat", "cow"], "'cow' is none of its classes cat, dog"),
        ({}, [], "needs the option classes"),
    ],
)
def test_refused_before_any_weights_are_loaded(options, prompts, said):
    with pytest.raises(RewardError) as refused:
        check("classification", options, prompts)
    assert said in str(refused.value)
