"""Policy gradients of stochastic denoising steps: what a reward without a gradient says about the step's output.

Notation
    z' = mu + q eps     a stochastic step (`sdo_ray.backprop.transitions`), mu linear in o with weight c = d mu / do
    D                   elements of one latent
    r, a                reward and advantage of a sample
"""

from sdo_ray.policy_gradient.advantages import ADVANTAGES, advantages
from sdo_ray.policy_gradient.gates import LEAST_GROUP, GroupStatistics, group_statistics, sign_agreement
from sdo_ray.policy_gradient.losses import LOSSES, Drift, gaussian_kl, output_distance
from sdo_ray.policy_gradient.step_weights import STEP_WEIGHTS, step_weight
from sdo_ray.policy_gradient.trees import edge_advantages

__all__ = [
    "ADVANTAGES",
    "LEAST_GROUP",
    "LOSSES",
    "STEP_WEIGHTS",
    "Drift",
    "GroupStatistics",
    "advantages",
    "edge_advantages",
    "gaussian_kl",
    "group_statistics",
    "output_distance",
    "sign_agreement",
    "step_weight",
]
