"""The Ray cluster a run uses: the one it is submitted to, or one of its own on this machine."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
import ray.data

from sdo_ray.own_packages import WORKER_SETUP
from sdo_ray.secrets import redact
from sdo_ray.settings import Problem, Problems, SettingsError


@dataclass(frozen=True)
class Demand:
    """What a part of a run occupies while it lasts."""

    what: str
    """In words."""
    count: int
    """How many actors."""
    num_cpus: float
    """CPU cores of each."""
    num_gpus: float
    """GPUs of each."""

    def __str__(self) -> str:
        gpus = f" + {self.num_gpus:g} GPU" if self.num_gpus else ""
        return f"{self.what}: {self.count} x ({self.num_cpus:g} CPU{gpus})"


def connect(demands: list[Demand]) -> str:
    """Join the cluster that RAY_ADDRESS names, as it does inside `ray job submit`, else start one on this machine.

    A cluster of our own declares as many logical CPUs as the run needs, so that a laptop can run every part. A joined
    cluster must have the resources: Ray would otherwise wait for ever.

    Args:
        demands: what runs at the same time.

    Returns:
        In words, what was joined or started.

    Raises:
        SettingsError: the cluster, or this machine's GPUs, are too small for the run.
    """
    cpus = sum(demand.count * demand.num_cpus for demand in demands)
    gpus = sum(demand.count * demand.num_gpus for demand in demands)
    joined = bool(os.environ.get("RAY_ADDRESS"))
    if not ray.is_initialized():
        everywhere = {"worker_process_setup_hook": WORKER_SETUP}
        if joined:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=everywhere)
        else:
            # All parts start at once, and none is reported as one too many.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(math.ceil(cpus) + 8))
            ray.init(
                address="local",
                num_cpus=math.ceil(cpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env=everywhere,
            )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # batches wait for policies as long as an update takes
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns of what is set two lines above
    has = ray.cluster_resources()
    if not has.get("GPU"):
        # DeepSpeed, which other libraries import here, would announce that it finds no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if has.get("CPU", 0) < cpus or has.get("GPU", 0) < gpus:
        parts = "; ".join(map(str, demands))
        raise SettingsError(
            Problem(
                "cluster",
                f"the run needs {cpus:g} CPU and {gpus:g} GPU at once, and there are {has.get('CPU', 0):g} CPU and "
                f"{has.get('GPU', 0):g} GPU",
                f"it asks for {parts}",
                "add nodes, or lower samplers.count, trainers.count or num_cpus/num_gpus",
            )
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    check_nodes(demands, nodes)
    if (free := ray.available_resources()).get("CPU", 0) < cpus or free.get("GPU", 0) < gpus:
        needed = _said({"CPU": cpus, "GPU": gpus})
        print(f"waiting for others to end: {_said(free)} are free, and the run needs {needed}", flush=True)
    return (
        f"Ray cluster of {len(nodes)} node{'s' * (len(nodes) > 1)}"
        if joined
        else f"Ray on this machine, {os.cpu_count()} cores"
    )


def check_nodes(demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse an actor that is larger than any node: Ray would wait for one that large for ever, in silence.

    Args:
        demands: what runs at the same time.
        nodes: the resources of each node.

    Raises:
        SettingsError: with the largest node.
    """
    with Problems() as problems:
        for demand in demands:
            if not any(_fits(demand, node) for node in nodes):
                largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
                got = f"{demand} fits no node; the largest has {_said(largest)}"
                problems.add(Problem("cluster", got, fix="add a larger node, or lower num_cpus or num_gpus"))


def _fits(demand: Demand, node: Mapping[str, float]) -> bool:
    return node.get("CPU", 0) >= demand.num_cpus and node.get("GPU", 0) >= demand.num_gpus


def _said(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"


def cause_of(error: BaseException) -> str:
    """What an actor or a task raised, in one line.

    The text of Ray's errors has where the cause passed through, what Ray made of it, and at times advice. The cause is
    the last line of the form `ValueError: what was wrong` that is no error of Ray's own; without one, the last that is,
    or the last line. The names of errors of ours, which are written for people, are left out, and what looks like a
    secret is cut out of it.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    named = [line for line in lines if re.match(r"[A-Za-z_][\w.]*: ", line)]
    cause = [*lines[-1:], *named, *(line for line in named if not line.startswith("ray."))][-1]
    return redact(re.sub(r"^sdo_ray\.[\w.]+: ", "", cause))
