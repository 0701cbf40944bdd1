"""What an image is taken for: zero-shot classification by the alignment network.

Notation
    c          one of the classes, a text
    a(x, c)    alignment of image x with c, a cosine               alignment.py
    T          temperature

    p(c | x) = softmax over the classes of a(x, c) / T,      score = log p(prompt | x)

The prompt of an image names the class it is to be taken for. Given a wrong one, this is the reward of an adversarial
sample.
"""

from collections.abc import Sequence

from torch import Tensor

from rewards.alignment import Alignment


class Classification:
    """log p(prompt | image), at most 0.

    Args:
        classes: the texts to choose from, two or more; every prompt is one of them.
        temperature: T. At 0.05 the probabilities are about as high as the classifier is often right.
        device: where to compute.

    Raises:
        ValueError: fewer than two classes, one of them twice, or T not positive.
        ImportError: the packages of the extra `emoji` are missing.
    """

    differentiable = True
    packages = "envs/emoji.txt"
    licence = "Apache-2.0 AND MIT"
    network: type[Alignment] = Alignment

    def __init__(self, *, classes: list[str], temperature: float = 0.05, device: str = "cpu") -> None:
        self.check_use((), classes=classes, temperature=temperature)
        self.device = device
        self._network = self.network(device=device)
        self.weights_hash = self._network.weights_hash
        self._classes, self._temperature = list(classes), temperature

    @classmethod
    def check_use(cls, prompts: Sequence[str], *, classes: list[str], temperature: float = 0.05, **_: object) -> None:
        """Refuse classes that are none, a temperature that is none, and prompts that are not among the classes."""
        if len(classes) < 2 or not all(isinstance(name, str) and name.strip() for name in classes):
            raise ValueError(f"option 'classes' must be two or more texts, got {classes}")
        if twice := sorted({name for name in classes if classes.count(name) > 1}):
            raise ValueError(f"option 'classes' has {', '.join(twice)} more than once")
        if temperature <= 0:
            raise ValueError(f"option 'temperature' must be positive, got {temperature}")
        if unknown := sorted({*prompts} - {*classes}):
            raise ValueError(f"{', '.join(map(repr, unknown))} is none of its classes {', '.join(classes)}")

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores, float32 [B], of images, float32 [B, 3, H, W] in [0, 1], each for the class its prompt names."""
        places = [self._classes.index(prompt) for prompt in prompts]
        return self.log_probabilities(images)[range(len(places)), places]

    def log_probabilities(self, images: Tensor) -> Tensor:
        """log p of every class, float32 [B, classes]."""
        return (self._network.table(images, self._classes) / self._temperature).log_softmax(-1)
