"""The manifests are what Kubernetes and KubeRay take, refuse what is unsafe, and hold the run that they start."""

import copy
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from sdo_ray.config.align import AlignSettings
from sdo_ray.config.loading import load_settings
from sdo_ray.secrets import kind_of_secret
from tests.infra import kuberay
from tests.support.runs import REPOSITORY

DIRECTORY = REPOSITORY / "infra/kuberay"
KUBERNETES = "1.34"
BUILDS = ("run", "cluster", "schedule", "schedule-kuberay")

Resource = dict[str, Any]
REFUSALS = (
    jsonschema.ValidationError,
    kubernetes_validate.ValidationError,
    kubernetes_validate.SchemaNotFoundError,
)
"""The last is for a kind or version that there is not."""


def build(name: str) -> list[Resource]:
    """What `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not on the PATH; it builds the manifests (`kubectl kustomize`)")
    command = ["kubectl", "kustomize", "--load-restrictor=LoadRestrictionsNone", str(DIRECTORY / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def find(resources: list[Resource], kind: str, name: str | None = None) -> Resource:
    (found,) = [r for r in resources if r["kind"] == kind and name in (None, r["metadata"]["name"])]
    return found


def pods_of(resource: Resource) -> Iterator[tuple[str, dict[str, Any]]]:
    if resource["kind"] == "CronJob":
        yield "schedule", resource["spec"]["jobTemplate"]["spec"]["template"]
    elif resource["apiVersion"] == "ray.io/v1":
        yield from kuberay.pod_templates(resource)


def validate(resource: Resource) -> None:
    if resource["apiVersion"] == "ray.io/v1":
        kuberay.validate(resource)
        for name, template in kuberay.pod_templates(resource):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **copy.deepcopy(template)}
            kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", BUILDS)
def test_the_manifests_fit_the_published_schemas(name: str) -> None:
    resources = build(name)
    for resource in resources:
        validate(resource)
    kinds = [resource["kind"] for resource in resources]
    expected = {"run": "RayJob", "cluster": "RayCluster", "schedule": "CronJob", "schedule-kuberay": "RayCronJob"}
    assert [kind for kind in kinds if kind in expected.values()] == [expected[name]]
    assert all(r["metadata"].get("namespace", "sdo") == "sdo" for r in resources)


def _head(job: Resource) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]


def _worker(job: Resource) -> dict[str, Any]:
    return job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]


def _container(job: Resource) -> dict[str, Any]:
    return _worker(job)["template"]["spec"]["containers"][0]


MISTAKES: dict[str, Callable[[Resource], Any]] = {
    "an unknown field of the job": lambda job: job["spec"].update(retries=3),
    "an unknown field of the cluster": lambda job: job["spec"]["rayClusterSpec"].update(workers=[]),
    "an unknown field of a group": lambda job: _worker(job).update(gpus=1),
    "a number for a text": lambda job: _head(job).update(rayStartParams={"num-cpus": 0}),
    "a text for a number": lambda job: _worker(job).update(replicas="2"),
    "no such mode": lambda job: job["spec"].update(submissionMode="JobMode"),
    "no such authentication": lambda job: job["spec"]["rayClusterSpec"].update(authOptions={"mode": "password"}),
    "no head": lambda job: job["spec"]["rayClusterSpec"].pop("headGroupSpec"),
    "no template": lambda job: _worker(job).pop("template"),
    "no cluster": lambda job: job["spec"].pop("rayClusterSpec"),
    "kept and removed": lambda job: job["spec"].update(shutdownAfterJobFinishes=False),
    "no deadline": lambda job: job["spec"].update(activeDeadlineSeconds=0),
    "an unknown field of a container": lambda job: _container(job).update(images="x"),
    "no name of a container": lambda job: _container(job).pop("name"),
    "a port that is text": lambda job: _container(job).update(ports=[{"containerPort": "metrics"}]),
    "a toleration that is text": lambda job: _worker(job)["template"]["spec"].update(tolerations=["spot"]),
    "a name too long for the operator": lambda job: job["metadata"].update(name="n" * 48),
    "a name that is no label": lambda job: job["metadata"].update(name="2026-night"),
    "more than there may be": lambda job: _worker(job).update(replicas=3),
    "another version": lambda job: job.update(apiVersion="ray.io/v2"),
}


@pytest.mark.parametrize("spoil", MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_found(spoil: Callable[[Resource], Any]) -> None:
    job = yaml.safe_load((DIRECTORY / "run/rayjob.yaml").read_text())
    validate(job)
    job = yaml.safe_load(yaml.dump(job, Dumper=_NoAnchors))
    spoil(job)
    with pytest.raises(REFUSALS):
        validate(job)


class _NoAnchors(yaml.SafeDumper):
    """A mistake in one place is to be one mistake."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "kind", "mistake"),
    [
        ("schedule", "CronJob", {"concurrencyPolicy": ["Forbid"]}),
        ("schedule", "CronJob", {"shedule": "* * * * *"}),
        ("common", "NetworkPolicy", {"policyTypes": "Ingress"}),
        ("common", "PersistentVolumeClaim", {"accessMode": ["ReadWriteMany"]}),
    ],
)
def test_mistakes_in_kubernetes_own_kinds_are_found(name: str, kind: str, mistake: dict[str, Any]) -> None:
    resource = copy.deepcopy(next(r for r in build(name) if r["kind"] == kind))
    resource["spec"] |= mistake
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(resource)


@pytest.mark.parametrize("name", BUILDS)
def test_every_pod_is_restricted_and_pinned(name: str) -> None:
    pods = [pod for resource in build(name) for pod in pods_of(resource)]
    assert pods
    for _, template in pods:
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert {kind for volume in spec["volumes"] for kind in volume} <= {
            *("name", "emptyDir", "persistentVolumeClaim", "secret", "configMap")
        }
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert resources["limits"].keys() >= {"cpu", "memory"}
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
        if name != "schedule":
            assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", BUILDS)
def test_there_are_references_to_secrets_and_no_secrets(name: str) -> None:
    resources = build(name)
    assert not [resource for resource in resources if resource["kind"] == "Secret"]
    for resource in resources:
        for _, template in pods_of(resource):
            for container in template["spec"]["containers"]:
                for variable in container.get("env", []):
                    assert not kind_of_secret(variable["name"], variable.get("value", ""))
    if name != "schedule":
        cluster = kuberay.cluster_of(next(r for r in resources if r["apiVersion"] == "ray.io/v1"))
        assert cluster["authOptions"] == {"mode": "token", "secretName": "sdo-ray-token"}


def test_a_pod_has_the_secrets_of_its_part_alone() -> None:
    """Rewards may be anybody's code."""
    seen = {}
    for name, template in kuberay.pod_templates(find(build("run"), "RayJob")):
        spec = template["spec"]
        secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
        files = [{item["path"] for item in secret["items"]} if "items" in secret else {"all"} for secret in secrets]
        (container,) = spec["containers"]
        named = {
            variable["value"].removeprefix("/run/secrets/sdo/")
            for variable in container.get("env", [])
            if variable.get("value", "").startswith("/run/secrets/")
        }
        seen[name] = set().union(*files)
        assert named <= seen[name] or seen[name] == {"all"}, name
    assert seen["rewards"] == {"hf_token"}
    assert seen["trainers"] == {"s3_credentials", "hf_token"}
    assert seen["submitter"] == set()


def test_disks_are_asked_for_and_models_fetched_once() -> None:
    """Else a node runs full, evicts what is on it, and each pod of each run fetches the base model again."""
    resources = build("run")
    for name, template in kuberay.pod_templates(find(resources, "RayJob")):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert all(volume["emptyDir"].get("sizeLimit") for volume in volumes.values() if "emptyDir" in volume), name
        (container,) = template["spec"]["containers"]
        if name == "submitter":
            continue
        assert "ephemeral-storage" in container["resources"]["requests"], name
        if name != "trainers":  # which hold trained weights alone
            (cache,) = (v["value"] for v in container["env"] if v["name"] == "HF_HOME")
            (mount,) = (m for m in container["volumeMounts"] if cache.startswith(m["mountPath"] + "/"))
            assert "persistentVolumeClaim" in volumes[mount["name"]], name
    common = yaml.safe_load_all((DIRECTORY / "common/storage.yaml").read_text())
    (claim,) = (resource["spec"] for resource in common if resource["kind"] == "PersistentVolumeClaim")
    assert claim["accessModes"] == ["ReadWriteMany"]
    assert claim["storageClassName"]  # a cloud's default is a disk of one node


def test_a_drain_waits_for_what_holds_a_run_together() -> None:
    budget = find(build("run"), "PodDisruptionBudget")["spec"]
    (selector,) = budget["selector"]["matchExpressions"]
    groups = {group["groupName"] for group in kuberay.cluster_of(find(build("run"), "RayJob"))["workerGroupSpecs"]}
    assert budget["maxUnavailable"] == 0
    # KubeRay labels pods with their group; the head's is called so.
    assert set(selector["values"]) == {"headgroup", "trainers"}
    assert set(selector["values"]) - {"headgroup"} <= groups


def test_names_are_found_wherever_dns_is() -> None:
    policies = [resource for resource in build("run") if resource["kind"] == "NetworkPolicy"]
    for name in ("ray", "submits"):
        rules = find(policies, "NetworkPolicy", name)["spec"]["egress"]
        (dns,) = [rule for rule in rules if {"port": 53, "protocol": "UDP"} in rule.get("ports", ())]
        assert {"port": 5353, "protocol": "UDP"} in dns["ports"]  # OpenShift's
        assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in dns["to"]  # a node's cache


def test_only_samplers_run_on_machines_that_can_be_taken_away() -> None:
    for name, template in kuberay.pod_templates(find(build("run"), "RayJob")):
        tolerations = template["spec"].get("tolerations", [])
        assert bool(tolerations) == (name == "samplers")
        # A pod that tolerates it lands on nodes that are being removed, and is not moved off them in time.
        assert not [toleration for toleration in tolerations if toleration["key"].startswith("karpenter.sh")]


def test_the_network_is_closed_but_for_what_is_named() -> None:
    policies = [resource for resource in build("run") if resource["kind"] == "NetworkPolicy"]
    closed = find(policies, "NetworkPolicy", "nothing-else")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    rules = find(policies, "NetworkPolicy", "ray")["spec"]
    assert all("from" in rule for rule in rules["ingress"])
    assert all("to" in rule for rule in rules["egress"])
    outside = [rule for rule in rules["ingress"] if "ports" in rule]
    assert {port["port"] for rule in outside for port in rule["ports"]} == {8265, 8080}
    submitter = dict(kuberay.pod_templates(find(build("run"), "RayJob")))["submitter"]
    assert submitter["metadata"]["labels"] == {"sdo/submits": "yes"}


def test_nights_do_not_overlap_and_the_schedule_can_do_nothing_else() -> None:
    resources = build("schedule")
    assert find(resources, "CronJob")["spec"]["concurrencyPolicy"] == "Forbid"
    (rule,) = find(resources, "Role")["rules"]
    assert rule == {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get"]}
    # What it makes is the run's manifest, to the letter.
    files = find(resources, "ConfigMap")["data"]
    assert files["rayjob.yaml"] == (DIRECTORY / "run/rayjob.yaml").read_text()
    assert files["night.py"] == (DIRECTORY / "schedule/night.py").read_text()
    assert yaml.safe_load(files["rayjob.yaml"])["spec"]["activeDeadlineSeconds"] < 24 * 3600


def test_the_operator_reaches_the_job_server_wherever_it_is_installed() -> None:
    policies = [resource for resource in build("run") if resource["kind"] == "NetworkPolicy"]
    sources = find(policies, "NetworkPolicy", "ray")["spec"]["ingress"][1]["from"]
    (namespaces,) = (
        source["namespaceSelector"]["matchExpressions"][0] for source in sources if "namespaceSelector" in source
    )
    assert set(namespaces["values"]) >= {"ray-system", "kuberay-system"}


def test_the_clusters_are_the_runs() -> None:
    job = find(build("run"), "RayJob")
    assert find(build("cluster"), "RayCluster")["spec"] == job["spec"]["rayClusterSpec"]
    assert find(build("schedule-kuberay"), "RayCronJob")["spec"]["jobTemplate"] == job["spec"]


def test_the_versions_are_the_projects() -> None:
    job = yaml.safe_load((DIRECTORY / "run/rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray.__version__


@ray.remote
class _Part:
    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


@pytest.mark.slow
def test_each_part_of_the_run_lands_on_its_group() -> None:
    """The manifest's groups as nodes of a real Ray cluster, and the demand of the manifest's run on it."""
    job = yaml.safe_load((DIRECTORY / "run/rayjob.yaml").read_text())
    entrypoint = job["spec"]["entrypoint"].replace("$(date +%F)", "today")  # as the submitter's shell does
    entrypoint = entrypoint.replace("$(date +%Y%m%d)", "20261121")
    command, config, *rest = shlex.split(entrypoint.removeprefix("tried sdo "))
    assert command == "align"
    overrides = [value for option, value in zip(rest[::2], rest[1::2], strict=True) if option == "--set"]
    overrides = [value for value in overrides if not value.startswith("run.")]
    settings = load_settings(AlignSettings, REPOSITORY / "pipelines" / config.lstrip("/"), overrides)

    cluster = Cluster()
    groups = {}
    try:
        spec = kuberay.cluster_of(job)
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            cpus = int(group["rayStartParams"].get("num-cpus", limits["cpu"]))
            for _ in range(group.get("replicas", 1)):
                node = cluster.add_node(num_cpus=cpus, num_gpus=int(limits.get("nvidia.com/gpu", 0)))
                groups[node.node_id] = group.get("groupName", "head")
        ray.init(address=cluster.address, log_to_driver=False)
        parts, placed = [], set()
        for demand in settings.demands():
            options = {"num_cpus": demand.num_cpus, "num_gpus": demand.num_gpus}
            for _ in range(demand.count):
                # they stay, and hold what they ask for
                parts.append(part := _Part.options(**options).remote())  # type: ignore[attr-defined]
                placed.add((demand.what, groups[ray.get(part.node.remote(), timeout=120)]))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert {group for what, group in placed if what == "samplers"} == {"samplers"}
    others = {group for what, group in placed if what != "samplers"}
    assert others <= {"rewards", "trainers"}
    assert len({what for what, _ in placed}) > 3
