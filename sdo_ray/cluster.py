"""The Ray cluster a run uses: the one it is submitted to, or one of its own on this machine."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
import ray.data
from ray.autoscaler.sdk import request_resources

from sdo_ray.interrupts import end_as_by_ctrl_c
from sdo_ray.own_packages import WORKER_SETUP
from sdo_ray.secrets import redact
from sdo_ray.settings import Problem, Problems, SettingsError

POLL = 5.0
"""Seconds between two looks at a cluster that grows."""


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
    at_least: int | None = None
    """How many there must be room for before a start; None: all."""

    @property
    def needed(self) -> int:
        """How many there must be room for before a start."""
        return self.count if self.at_least is None else self.at_least

    def __str__(self) -> str:
        gpus = f" + {self.num_gpus:g} GPU" if self.num_gpus else ""
        return f"{self.what}: {self.count} x ({self.num_cpus:g} CPU{gpus})"


def connect(demands: list[Demand], wait: float = 0.0) -> str:
    """Join the cluster that RAY_ADDRESS names, as it does inside `ray job submit`, else start one on this machine.

    A cluster of our own declares as many logical CPUs as the run needs, so that a laptop can run every part. A joined
    cluster must have the resources: Ray would otherwise wait for ever.

    Args:
        demands: what runs at the same time.
        wait: seconds that a joined cluster may take to grow to what is needed.

    Returns:
        In words, what was joined or started.

    Raises:
        SettingsError: the cluster, or this machine's GPUs, are too small for the run.
    """
    joined = bool(os.environ.get("RAY_ADDRESS"))
    if not ray.is_initialized():
        everywhere = {"worker_process_setup_hook": WORKER_SETUP}
        if joined:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=everywhere)
        else:
            cpus = sum(demand.count * demand.num_cpus for demand in demands)
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
        end_as_by_ctrl_c()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # batches wait for policies as long as an update takes
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns of what is set two lines above
    if joined:
        _grow(demands, wait)
    if not ray.cluster_resources().get("GPU"):
        # DeepSpeed, which other libraries import here, would announce that it finds no accelerator.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    nodes = _nodes()
    check_room(demands, nodes)
    if (waits := wait_for_others(demands, ray.available_resources())) is not None:
        print(waits, flush=True)
    return (
        f"Ray cluster of {len(nodes)} node{'s' * (len(nodes) > 1)}"
        if joined
        else f"Ray on this machine, {os.cpu_count()} cores"
    )


def wait_for_others(demands: Sequence[Demand], free: Mapping[str, float]) -> str | None:
    """What to say of a run that others leave no room for yet; None if they do.

    Args:
        demands: what runs at the same time.
        free: the cluster's resources that nobody uses.
    """
    cpus, gpus = _total(demands)
    if free.get("CPU", 0) >= cpus and free.get("GPU", 0) >= gpus:
        return None
    needed = _said({"CPU": cpus, "GPU": gpus})
    return f"waiting for others to end: {_said(free)} are free, and the run needs {needed}"


def check_room(demands: Sequence[Demand], nodes: Sequence[Mapping[str, float]]) -> None:
    """Refuse what there is no room for, in all or, of one actor, on any node: Ray would wait for ever, in silence.

    Args:
        demands: what runs at the same time.
        nodes: the resources of each node.

    Raises:
        SettingsError: with what there is.
    """
    cpus, gpus = _total(demands)
    has = {kind: sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    with Problems() as problems:
        if has["CPU"] < cpus or has["GPU"] < gpus:
            needs = f"the run needs {cpus:g} CPU and {gpus:g} GPU at once, and there are {_said(has)}"
            parts = f"it asks for {'; '.join(map(str, demands))}"
            fix = "add nodes, or lower samplers.count, samplers.at_least, trainers.count or num_cpus/num_gpus"
            problems.add(Problem("cluster", needs, parts, fix))
        for demand in demands:
            room = sum(_room(demand, node) for node in nodes)
            if not room:
                largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
                got = f"{demand} fits no node; the largest has {_said(largest)}"
                problems.add(Problem("cluster", got, fix="add a larger node, or lower num_cpus or num_gpus"))
            elif room < demand.needed:
                got = f"{demand}: node by node there is room for {room:g}, and it needs {demand.needed}"
                problems.add(Problem("cluster", got, fix="add a node, or lower num_cpus or num_gpus"))


def _grow(demands: Sequence[Demand], wait: float) -> None:
    """Ask the cluster's autoscaler for what is needed, and wait for it."""
    ends, asked = time.monotonic() + wait, False
    try:
        while time.monotonic() < ends:
            try:
                check_room(demands, _nodes())
                return
            except SettingsError:
                if not asked:
                    actors = [demand for demand in demands for _ in range(demand.needed)]
                    request_resources(bundles=[{"CPU": actor.num_cpus, "GPU": actor.num_gpus} for actor in actors])
                    cpus, gpus = _total(demands)
                    needed = _said({"CPU": cpus, "GPU": gpus})
                    print(f"waiting up to {wait:g} s for the cluster to have {needed}", flush=True)
                    asked = True
                time.sleep(min(POLL, max(0.0, ends - time.monotonic())))
    finally:
        if asked:  # from here on actors say what they need; a request outlives whoever made it
            request_resources(bundles=[])


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _total(demands: Sequence[Demand]) -> tuple[float, float]:
    """CPU cores and GPUs."""
    cpus = sum(demand.needed * demand.num_cpus for demand in demands)
    return cpus, sum(demand.needed * demand.num_gpus for demand in demands)


def _room(demand: Demand, node: Mapping[str, float]) -> float:
    """How many actors of a demand a node has room for, with nothing else on it."""
    asked = {"CPU": demand.num_cpus, "GPU": demand.num_gpus}
    # A fraction such as 0.1 is not quite one.
    return min((node.get(kind, 0) / count + 1e-6) // 1 if count else math.inf for kind, count in asked.items())


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
