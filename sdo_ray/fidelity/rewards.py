"""How the rewards pull on the images, and whether the same way: see `rewards.pulls` and `rewards.mix.cosines_of`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rewards.pulls import Pull, added


@dataclass(frozen=True)
class RewardPulls:
    """Of rewards with a weight, at the images of one plan."""

    norms: Mapping[str, float]
    """Reward key -> n_r over all images, root mean square of the norm of its gradient; of those that have one."""
    cosines: Mapping[str, float]
    """"KEY/KEY" of two rewards -> mean cosine of their gradients, weights' signs counted; mean over batches."""

    @classmethod
    def of(cls, pulls: Iterable[Mapping[str, Pull]], cosines: Sequence[Mapping[str, float]]) -> RewardPulls:
        """From those of each batch."""
        norms = {key: pull.norm for key, pull in added(pulls).items()}
        pairs = dict.fromkeys(pair for batch in cosines for pair in batch)
        means = {pair: statistics.mean(batch[pair] for batch in cosines if pair in batch) for pair in pairs}
        return cls({key: norm for key, norm in norms.items() if norm is not None}, means)

    def metrics(self) -> dict[str, float]:
        """Numbers by name, as a run's are called."""
        norms = {f"reward_gradient_norm/{key}": norm for key, norm in self.norms.items()}
        return norms | {f"reward_cosine/{pair}": cosine for pair, cosine in self.cosines.items()}

    def lines(self) -> Iterator[str]:
        """A table of rewards, and one of pairs."""
        width = max(map(len, (*self.norms, *self.cosines, "rewards")))
        yield f"{'reward':<{width}}  {'norm of gradient':>16}"
        yield from (f"{key:<{width}}  {norm:>16.3g}" for key, norm in self.norms.items())
        if self.cosines:
            yield f"{'rewards':<{width}}  {'cosine':>16}"
            yield from (f"{pair:<{width}}  {cosine:>16.3f}" for pair, cosine in self.cosines.items())
