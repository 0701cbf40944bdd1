"""Policy gradients of stochastic denoising steps: what a reward without a gradient says about the step's output.

Notation
    z' = mu + q eps     a stochastic step (`sdo_ray.backprop.transitions`), mu linear in o with weight c = d mu / do
    D                   elements of one latent
    r, a                reward and advantage of a sample
"""

from sdo_ray.policy_gradient import estimators
from sdo_ray.policy_gradient.advantages import ADVANTAGES, advantages
from sdo_ray.policy_gradient.cotangents import difference_cotangents, mixed, policy_cotangents, step_advantages
from sdo_ray.policy_gradient.gates import LEAST_GROUP, GroupStatistics, group_statistics, sign_agreement
from sdo_ray.policy_gradient.losses import LOSSES, Drift, gaussian_kl, output_distance
from sdo_ray.policy_gradient.off_policy import Outputs, anchor_cotangents, drifted_cotangents
from sdo_ray.policy_gradient.plan import PolicyPlan
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
    "Drift",
    "GroupStatistics",
    "Outputs",
    "PolicyPlan",
    "advantages",
    "anchor_cotangents",
    "available",
    "check_policy_plan",
    "difference_cotangents",
    "drifted_cotangents",
    "edge_advantages",
    "estimators",
    "gaussian_kl",
    "group_statistics",
    "make_policy_plan",
    "mixed",
    "output_distance",
    "policy_cotangents",
    "policy_estimator",
    "policy_option_names",
    "sign_agreement",
    "step_advantages",
    "step_weight",
]
