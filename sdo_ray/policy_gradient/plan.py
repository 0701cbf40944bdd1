"""A plan of policy gradients: which steps are stochastic, which are learned from, and how samples are compared.

Rows are in groups of one prompt; a group has `seeds` roots, of initial noises of their own, and each root the leaves of
`branching`. What a root's rows share is denoised once.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from sdo_ray.backprop import BackpropPlan, PlanError, StepGradient
from sdo_ray.backprop.transitions import KERNELS, Branching
from sdo_ray.policy_gradient.advantages import ADVANTAGES
from sdo_ray.policy_gradient.averages import Decay
from sdo_ray.policy_gradient.losses import LOSSES
from sdo_ray.policy_gradient.step_weights import STEP_WEIGHTS

Baseline = Literal["seed", "prompt"]
"""What a sample is compared with: those of its own initial noise, or all of its prompt."""


@dataclass(frozen=True)
class Forward:
    """How a forward-process method learns; see `sdo_ray.policy_gradient.forward`.

    Attributes:
        kind: which.
        decay: of the average of the policies, see `averages`.
        b: of NFT, above 0.
        power: of AWM, above 0.
        pull: weight of mean (o - o_avg)^2.

    Raises:
        PlanError: numbers out of range.
    """

    kind: Literal["nft", "awm"]
    decay: Decay
    b: float = 1.0
    power: float = 0.25
    pull: float = 0.0

    def __post_init__(self) -> None:
        for option, value in (("b", self.b), ("power", self.power)):
            if not _is_number(value) or value <= 0:
                raise PlanError(option, value, "a number above 0", f"raise {option}")
        if not _is_number(self.pull) or self.pull < 0:
            raise PlanError("pull", self.pull, "a number of at least 0", "raise pull")

    @property
    def samples_by_average(self) -> bool:
        """Whether samples are the average's, and not the newest policy's."""
        return self.kind == "nft"


@dataclass(frozen=True)
class PolicyPlan:
    """One update's policy gradient, decided before its samples are made.

    Attributes:
        name: the estimator the plan came from.
        num_steps: N, the steps that the scheduler takes.
        stochastic: steps with fresh noise after them, in 0 .. N-2.
        kept: those of them that are learned from.
        branching: where the rows of one root part.
        seeds: roots of a group.
        kernel: how noise is put in, see `sdo_ray.backprop.transitions.KERNELS`.
        eta: its strength; None is the kernel's default.
        advantage: see `ADVANTAGES`; "depth" is BranchGRPO's, of trees, and "novelty" GARDO's, of samples unlike others.
        baseline: what samples are compared with.
        best_and_worst: if given, how many samples keep their advantage; of a tree, leaves after its last split.
        better_half: of a tree, whether only the better half of each branch keeps its advantage after the last split.
        trimmed: of the advantage "mix", the share of a group's lowest scores that mean and deviation are without.
        by_likelihood: of a tree, whether a branch's worth is that of its children by their probability, not alike.
        weight: how much each step counts, see `STEP_WEIGHTS`.
        pool: the steps that `kept` was drawn from, for a weight that compares them.
        mirrored: whether neighbouring rows have noise of opposite sign.
        differences: whether rewards' differences over those of the final latents are an estimate of the reward's
            gradient there, taken back to `kept` as that of a differentiable reward would be: no probabilities.
        share: of rewards without a gradient in the pull at a step, where others have one; 0 .. 1.
        loss: "reinforce", -a log p of the policy that sampled, or one of `LOSSES`, of the newest policy: each ratio of
            the two is a correction for the updates between them.
        clip: where the loss stops; None is nowhere.
        kl: beta >= 0 of the divergence of each kept step from the base model's, see `losses.gaussian_kl`.
        output_kl: likewise of `losses.output_distance`.
        forward: if given, samples are noised again to the levels of `kept` and learned from there, without noise in the
            sampling and without probabilities.

    Raises:
        PlanError: a choice that there is not, or numbers out of range.
    """

    name: str
    num_steps: int
    stochastic: tuple[int, ...]
    kept: tuple[int, ...]
    branching: Branching = field(default_factory=Branching)
    seeds: int = 1
    kernel: str = "cps"
    eta: float | None = None
    advantage: str = "group"
    baseline: Baseline = "prompt"
    best_and_worst: int | None = None
    better_half: bool = False
    trimmed: float = 0.0
    by_likelihood: bool = False
    weight: str = "one"
    pool: tuple[int, ...] = ()
    mirrored: bool = False
    differences: bool = False
    share: float = 0.5
    loss: str = "reinforce"
    clip: float | None = None
    kl: float = 0.0
    output_kl: float = 0.0
    forward: Forward | None = None

    def __post_init__(self) -> None:
        _check_choice("kernel", self.kernel, KERNELS)
        _check_choice("advantage", self.advantage, [*ADVANTAGES, "depth", "novelty"])
        _check_choice("baseline", self.baseline, ("seed", "prompt"))
        _check_choice("weight", self.weight, STEP_WEIGHTS)
        if not _is_number(self.share) or not 0 < self.share < 1:
            raise PlanError("share", self.share, "a number between 0 and 1", "0.5 is equal pulls")
        self._check_loss()
        n = self.best_and_worst
        if n is not None and not (isinstance(n, int) and 2 <= n <= self.compared and n % 2 == 0):
            raise PlanError("best_and_worst", n, f"an even number in 2 .. {self.compared}", "leave it out to use all")
        if self.better_half and (self.advantage != "depth" or n is not None):
            legal = "true for trees (advantage: depth) without best_and_worst, which says otherwise who is left"
            raise PlanError("better_half", True, legal, "leave one of them out")
        if not _is_number(self.trimmed) or not 0 <= self.trimmed < 1:
            raise PlanError("trimmed", self.trimmed, "a share from 0 to below 1", "leave it out to use all scores")
        if self.trimmed and self.advantage != "mix":
            raise PlanError("trimmed", self.trimmed, "0 but with advantage: mix, which is MixGRPO's", "leave it out")
        if self.by_likelihood and self.advantage != "depth":
            raise PlanError("by_likelihood", True, "true for trees (advantage: depth)", "leave it out")
        if self.advantage == "depth" and not self.branching.splits:
            raise PlanError("advantage", "depth", "another: depths are those of trees", "use branch-grpo")
        if self.differences and (self.advantage, self.weight, n) != ("group", "one", None):
            legal = "no advantage, weight or best_and_worst: differences of rewards are what teaches"
            raise PlanError("plan", self.name, legal, "leave them out, or use group")
        if self.compared < 2:
            legal = "at least 2 samples that are compared with one another"
            raise PlanError("samples", self.compared, legal, "give a group more samples, or baseline: prompt")

    def _check_loss(self) -> None:
        _check_choice("loss", self.loss, ("reinforce", *LOSSES))
        if self.clip is not None and (not _is_number(self.clip) or self.clip <= 0):
            raise PlanError("clip", self.clip, "a number above 0", "leave it out: nothing is clipped then")
        if self.clip is not None and not self.corrects:
            legal = f"none with loss: reinforce, which has no ratio; {', '.join(LOSSES)} have one"
            raise PlanError("clip", self.clip, legal, "choose one of these, or leave it out")
        for option, beta in (("kl", self.kl), ("output_kl", self.output_kl)):
            if not _is_number(beta) or beta < 0:
                raise PlanError(option, beta, "a number of at least 0", "leave it out: it is 0 then")
        if self.forward and (self.corrects or self.kl or self.weight != "one" or self.eta is not None):
            legal = "no eta, weight, loss or kl, which are of noise in the sampling; output_kl is there"
            raise PlanError("plan", self.name, legal, "leave them out, or use group")
        if self.differences and (self.corrects or self.is_anchored):
            legal = "loss: reinforce without kl or output_kl: differences of rewards are no probabilities"
            raise PlanError("plan", self.name, legal, "leave them out, or use group")

    @property
    def corrects(self) -> bool:
        """Whether it learns with the newest policy what an older one sampled, by the ratio of the two."""
        return self.loss != "reinforce"

    @property
    def is_anchored(self) -> bool:
        """Whether the base model's outputs are asked for."""
        return bool(self.kl or self.output_kl)

    @property
    def asks_others(self) -> bool:
        """Whether kept steps are made again with other weights than those that sampled."""
        return self.corrects or self.is_anchored or self.forward is not None

    @property
    def samples(self) -> int:
        """Images of one prompt."""
        return self.seeds * self.branching.leaves

    @property
    def compared(self) -> int:
        """Samples that a sample is compared with, itself among them."""
        return self.branching.leaves if self.baseline == "seed" else self.samples

    @property
    def backprop(self) -> BackpropPlan:
        """Which steps keep their graph: several keep their inputs alone, so that memory does not grow with them."""
        steps = {k: StepGradient() for k in self.kept}
        return BackpropPlan(self.name, self.num_steps, steps, checkpoint=len(steps) > 1)

    def describe(self) -> str:
        """One line for logs."""
        noise = f"{self.kernel} noise after steps {', '.join(map(str, self.stochastic))}"
        parts = ", ".join(f"{n} at {k}" for k, n in sorted(self.branching.splits.items()))
        rows = f"{self.samples} samples a prompt from {self.seeds} initial noises" + (
            f", parting {parts}" * bool(parts)
        )
        if self.forward:
            noise = "samples without noise between steps, noised again"
        return f"{self.name}: {noise}; learns from {', '.join(map(str, self.kept))}; {rows}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_choice(option: str, got: object, legal: object) -> None:
    names = list(legal)  # type: ignore[call-overload]
    if got not in names:
        raise PlanError(option, got, f"one of {', '.join(names)}", "choose one")
