"""Print the reference of all settings: `python -m pipelines.reference > docs/configuration.md`."""

from pipelines.commands import commands_with_settings
from sdo_ray.config.reference import reference

if __name__ == "__main__":
    print(reference(commands_with_settings()), end="")
