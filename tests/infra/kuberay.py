"""The custom resources of KubeRay 1.7 as a JSON schema, written after their published reference.

The reference is docs/reference/api.md of github.com/ray-project/kuberay at v1.7.0 (Apache License 2.0): names, types
and legal values of all fields of RayCluster, RayJob and RayCronJob. Pod templates and other parts of Kubernetes are
checked with its own schemas, see `pod_templates`.
"""

from collections.abc import Iterator
from typing import Any

import jsonschema

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NUMBER = {"type": "number"}
YES_NO = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
KUBERNETES = {"type": "object"}
"""A part of Kubernetes' own."""


def _one_of(*values: str) -> dict[str, Any]:
    return {"enum": list(values)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _section(*required: str, **fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


_RULES = {"ingressRules": _list(KUBERNETES), "egressRules": _list(KUBERNETES)}
_DELETION = _one_of("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone")
_GROUP = {"rayStartParams": TEXTS, "template": KUBERNETES, "resources": TEXTS, "labels": TEXTS}

CLUSTER = _section(
    "headGroupSpec",
    headGroupSpec=_section(
        "template",
        **_GROUP,
        headService=KUBERNETES,
        enableIngress=YES_NO,
        ingressOptions=KUBERNETES,
        serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    ),
    workerGroupSpecs=_list(
        _section(
            "groupName",
            "template",
            **_GROUP,
            groupName=TEXT,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            idleTimeoutSeconds=WHOLE,
            priority=WHOLE,
            numOfHosts=WHOLE,
            suspend=YES_NO,
            scaleStrategy=_section(workersToDelete=_list(TEXT)),
        )
    ),
    rayVersion=TEXT,
    authOptions=_section(mode=_one_of("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=YES_NO),
    enableInTreeAutoscaling=YES_NO,
    autoscalerOptions=_section(
        resources=KUBERNETES,
        image=TEXT,
        imagePullPolicy=_one_of("Always", "IfNotPresent", "Never"),
        securityContext=KUBERNETES,
        idleTimeoutSeconds=WHOLE,
        upscalingMode=_one_of("Default", "Aggressive", "Conservative"),
        version=_one_of("v1", "v2"),
        env=_list(KUBERNETES),
        envFrom=_list(KUBERNETES),
        volumeMounts=_list(KUBERNETES),
        command=_list(TEXT),
        args=_list(TEXT),
    ),
    gcsFaultToleranceOptions=KUBERNETES,
    historyServerOptions=KUBERNETES,
    networkPolicy=_section(
        mode=_one_of("DenyAll", "DenyAllIngress", "DenyAllEgress"),
        head=_section(**_RULES),
        worker=_section(**_RULES),
        workerGroups=_list(_section("groupName", groupName=TEXT, **_RULES)),
    ),
    tlsOptions=_section(enabled=YES_NO),
    upgradeStrategy=_section(type=_one_of("Recreate", "None")),
    managedBy=_one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    headServiceAnnotations=TEXTS,
    suspend=YES_NO,
)

JOB = _section(
    entrypoint=TEXT,
    rayClusterSpec=CLUSTER,
    clusterSelector=TEXTS,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=TEXTS,
    submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterPodTemplate=KUBERNETES,
    submitterConfig=_section(backoffLimit=WHOLE),
    entrypointNumCpus=NUMBER,
    entrypointNumGpus=NUMBER,
    entrypointResources=TEXT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
    backoffLimit=WHOLE,
    shutdownAfterJobFinishes=YES_NO,
    ttlSecondsAfterFinished=WHOLE,
    deletionStrategy=_section(
        onSuccess=_section(policy=_DELETION),
        onFailure=_section(policy=_DELETION),
        deletionRules={
            "type": "array",
            "minItems": 1,
            "items": _section("policy", "condition", policy=_DELETION, condition=KUBERNETES),
        },
    ),
    managedBy=_one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    suspend=YES_NO,
) | {
    # What the operator refuses besides, in the reference's words on deletionStrategy and TTLSecondsAfterFinished.
    "allOf": [
        {
            "if": {"properties": {"ttlSecondsAfterFinished": {"minimum": 1}}, "required": ["ttlSecondsAfterFinished"]},
            "then": {
                "properties": {"shutdownAfterJobFinishes": {"const": True}},
                "required": ["shutdownAfterJobFinishes"],
            },
        },
        {"oneOf": [{"required": ["rayClusterSpec"]}, {"required": ["clusterSelector"]}]},
    ]
}

SPECS = {
    "RayCluster": CLUSTER,
    "RayJob": JOB,
    "RayCronJob": _section(
        "schedule",
        "jobTemplate",
        schedule={"type": "string", "pattern": r"^(\S+ ){4}\S+$"},
        jobTemplate=JOB,
        timeZone={"type": "string", "minLength": 1},
        suspend=YES_NO,
    ),
}
"""Kind -> schema of its `spec`."""


LONGEST = {"RayCluster": 53, "RayJob": 47, "RayCronJob": 47}
"""Characters of a name; the operator appends some of its own, and refuses longer ones (ray-operator's validation)."""


def validate(resource: dict[str, Any]) -> None:
    """Raise a jsonschema.ValidationError if a resource of KubeRay does not fit the schema."""
    name = {
        "type": "string",
        "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
        "maxLength": LONGEST.get(resource["kind"], 253),
    }
    metadata = _section("name", name=name, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    schema = _section(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind=_one_of(*SPECS),
        metadata=metadata,
        spec=SPECS.get(resource["kind"], {}),
    )
    jsonschema.validate(resource, schema)
    for group in cluster_of(resource).get("workerGroupSpecs", []):
        least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
        if not least <= group.get("replicas", least) <= most:
            raise jsonschema.ValidationError(f"{group['groupName']}: its replicas are not within its limits")


def cluster_of(resource: dict[str, Any]) -> dict[str, Any]:
    """The specification of the cluster that a resource of KubeRay makes."""
    spec: dict[str, Any] = resource["spec"]
    match resource["kind"]:
        case "RayJob":
            return spec["rayClusterSpec"]
        case "RayCronJob":
            return spec["jobTemplate"]["rayClusterSpec"]
    return spec


def pod_templates(resource: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template in a resource of KubeRay: the group's name, the template."""
    cluster = cluster_of(resource)
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]
    job = resource["spec"].get("jobTemplate", resource["spec"])
    if "submitterPodTemplate" in job:
        yield "submitter", job["submitterPodTemplate"]
