"""One driver per job."""

from sdo_ray.own_packages import prefer_own_packages

# Whoever runs one of these, by whatever command, works with the rewards that came with it.
prefer_own_packages()
