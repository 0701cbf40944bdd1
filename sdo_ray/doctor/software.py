"""Python and its packages."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from sdo_ray.doctor.finding import Finding, ok, problem, warning

PACKAGE = "sdo-ray"
OLDEST_PYTHON = (3, 11)


def python_version() -> Finding:
    """Python."""
    found = platform.python_version()
    if tuple(map(int, found.split(".")[:2])) < OLDEST_PYTHON:
        return problem("Python", found, "install Python 3.11 or newer and make a new environment with it")
    return ok("Python", found)


def torch_build() -> Finding:
    """torch."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    says = f"{torch.__version__}, built for {build}"
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return ok("torch", f"{says}; sees {names}")
    if torch.version.cuda:
        return warning(
            "torch",
            f"{says}, but sees no GPU",
            "if this machine has one, look at nvidia-smi, the driver's version and CUDA_VISIBLE_DEVICES",
        )
    return ok("torch", f"{says}; no GPU is used")


def required_packages() -> Finding:
    """required packages."""
    return _installed("required packages", extra="", mend="pip install -e .")


def emoji_packages() -> Finding:
    """packages of the embedded model."""
    finding = _installed("packages of the embedded model", extra="emoji", mend="pip install 'sdo-ray[emoji]'")
    if not finding.mend:
        return finding
    return warning(finding.subject, finding.says + "; without them zoo://emoji does not load", finding.mend)


def torchvision_absent_or_matching() -> Finding:
    """torchvision."""
    import torch

    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return ok("torchvision", "not installed, and not needed")
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        return problem(
            "torchvision",
            f"{found} does not match torch {torch.__version__}: {' '.join(str(error).split())[:120]}; "
            "diffusers would fail to import",
            "pip uninstall torchvision",
        )
    return ok("torchvision", f"{found} matches torch {torch.__version__}")


def _installed(subject: str, extra: str, mend: str) -> Finding:
    """Whether the packages that the project's metadata asks for are there in the versions it asks for."""
    requirements = [Requirement(line) for line in requires(PACKAGE) or []]
    wanted = [r for r in requirements if (r.marker.evaluate({"extra": extra}) if r.marker else not extra)]
    wrong = []
    for requirement in wanted:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} is {found}, not {requirement.specifier}")
    if wrong:
        return problem(subject, "; ".join(wrong), mend)
    return ok(subject, ", ".join(f"{r.name} {version(r.name)}" for r in wanted))
