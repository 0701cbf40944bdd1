"""Policy gradients of stochastic denoising steps: what a reward without a gradient says about the step's output.

Notation
    z' = mu + q eps     a stochastic step (`sdo_ray.backprop.transitions`), mu linear in o with weight c = d mu / do
    D                   elements of one latent
    r, a                reward and advantage of a sample
"""

from sdo_ray.policy_gradient import estimators
from sdo_ray.policy_gradient.advantages import ADVANTAGES, Weight, advantages
from sdo_ray.policy_gradient.averages import Decay, decay_at
from sdo_ray.policy_gradient.cotangents import difference_cotangents, mixed, policy_cotangents, step_advantages
from sdo_ray.policy_gradient.forward import awm_loss, forward_cotangents, nft_loss
from sdo_ray.policy_gradient.gates import LEAST_GROUP, GroupStatistics, group_statistics, sign_agreement
from sdo_ray.policy_gradient.losses import LOSSES, Drift, gaussian_kl, output_distance
from sdo_ray.policy_gradient.off_policy import Outputs, anchor_cotangents, drifted_cotangents
from sdo_ray.policy_gradient.plan import Forward, PolicyPlan
from sdo_ray.policy_gradient.registry import (
    available,
    check_policy_plan,
    make_policy_plan,
    policy_estimator,
    policy_option_names,
)
from sdo_ray.policy_gradient.step_weights import STEP_WEIGHTS, step_weight
from sdo_ray.policy_gradient.trees import edge_advantages

__all__ = [
    "ADVANTAGES",
    "LEAST_GROUP",
    "LOSSES",
    "STEP_WEIGHTS",
    "Decay",
    "Drift",
    "Forward",
    "GroupStatistics",
    "Outputs",
    "PolicyPlan",
    "Weight",
    "advantages",
    "anchor_cotangents",
    "available",
    "awm_loss",
    "check_policy_plan",
    "decay_at",
    "difference_cotangents",
    "drifted_cotangents",
    "edge_advantages",
    "estimators",
    "forward_cotangents",
    "gaussian_kl",
    "group_statistics",
    "make_policy_plan",
    "mixed",
    "nft_loss",
    "output_distance",
    "policy_cotangents",
    "policy_estimator",
    "policy_option_names",
    "sign_agreement",
    "step_advantages",
    "step_weight",
]
