"""What KubeRay refuses: by its schemas, where they are at hand, and by its operator's own rules.

The schemas are made strict: a field they do not name is an error. The rules are those of KubeRay
1.7's `validation.go` (`ValidateRayJobSpec`, `ValidateRayClusterSpec`) that manifests like ours can
break, with the feature gates at their defaults; no API server knows them, the operator alone.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema

PROJECT = Path(__file__).parents[2]
SCHEMAS = Path(os.environ.get("GANGRU_KUBERAY_SCHEMAS") or PROJECT.parent / "shared" / "kuberay")
"""Not ours to copy: a folder with `rayclusters.*.schema.json.gz` and `rayjobs.*.schema.json.gz`."""
_FILES = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}
_FREE = ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource")


def strict(node: Any, *, top: bool = False) -> Any:
    """The same schema, in which objects that name their properties admit no others."""
    if not isinstance(node, dict):
        return node
    made = dict(node)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "properties" in made:
        made["properties"] = {
            name: part if top and name == "metadata" else strict(part)
            for name, part in made["properties"].items()
        }
        if not any(made.get(name) for name in _FREE):
            made.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(made.get(name), dict):
            made[name] = strict(made[name])
    return made


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """Strict schema of a kind of KubeRay's."""
    path = next(SCHEMAS.glob(f"{_FILES[kind]}.*.schema.json.gz"))
    found: dict[str, Any] = strict(json.loads(gzip.decompress(path.read_bytes())), top=True)
    return found


def pod_template() -> dict[str, Any]:
    """Strict schema of any pod template: the head's."""
    spec = schema("RayCluster")["properties"]["spec"]["properties"]
    found: dict[str, Any] = spec["headGroupSpec"]["properties"]["template"]
    return found


def complaints(value: dict[str, Any], against: dict[str, Any]) -> list[str]:
    """What is wrong, each with its place."""
    errors = jsonschema.Draft202012Validator(against).iter_errors(value)
    return [f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in errors]


def refusals(document: dict[str, Any]) -> list[str]:
    """Why KubeRay's operator would refuse a RayCluster or a RayJob."""
    spec, name = document["spec"], document["metadata"]["name"]
    is_job = document["kind"] == "RayJob"
    cluster = spec.get("rayClusterSpec") if is_job else spec
    selector, attempts = spec.get("clusterSelector"), spec.get("backoffLimit", 0)
    mode = spec.get("submissionMode", "K8sJobMode")
    ttl, finite = spec.get("ttlSecondsAfterFinished", 0), spec.get("shutdownAfterJobFinishes")
    found = {
        "name is too long": len(name) > (47 if is_job else 53),
        "name is no DNS label": not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name),
    }
    if is_job:
        found |= {
            "backoffLimit with clusterSelector": bool(selector) and attempts > 0,
            "backoffLimit in InteractiveMode": mode == "InteractiveMode" and attempts > 0,
            "backoffLimit is negative": attempts < 0,
            "neither rayClusterSpec nor clusterSelector": cluster is None and not selector,
            "clusterSelector names no cluster": selector is not None
            and not selector.get("ray.io/cluster"),
            "clusterSelector in SidecarMode": bool(selector) and mode == "SidecarMode",
            "suspend with clusterSelector": bool(selector) and bool(spec.get("suspend")),
            "suspend without shutdownAfterJobFinishes": bool(spec.get("suspend")) and not finite,
            "ttlSecondsAfterFinished without shutdownAfterJobFinishes": ttl > 0 and not finite,
            "ttlSecondsAfterFinished is negative": ttl < 0,
            "activeDeadlineSeconds is not positive": spec.get("activeDeadlineSeconds", 1) <= 0,
            "deletionStrategy needs a feature gate": "deletionStrategy" in spec,
        }
    return [text for text, holds in found.items() if holds] + _refuse_cluster(cluster or {})


def _refuse_cluster(spec: dict[str, Any]) -> list[str]:
    if not spec:
        return []
    options = spec.get("autoscalerOptions", {})
    is_scaled, head = bool(spec.get("enableInTreeAutoscaling")), spec["headGroupSpec"]
    version = tuple(map(int, re.findall(r"\d+", spec.get("rayVersion", "0"))[:2]))
    has_token = spec.get("authOptions", {}).get("mode") == "token"
    variables = {
        one["name"] for box in head["template"]["spec"]["containers"] for one in box.get("env", [])
    }
    found = {
        "a token needs rayVersion >= 2.52": has_token and version < (2, 52),
        "idleTimeoutSeconds is negative": options.get("idleTimeoutSeconds", 0) < 0,
        "the autoscaler's version twice": "version" in options
        and "RAY_enable_autoscaler_v2" in variables,
        "a feature gate is off": bool(
            {"networkPolicy", "tlsOptions", "historyServerOptions"} & set(spec)
        ),
    }
    is_v2 = is_scaled and options.get("version") == "v2"
    texts = [text for text, holds in found.items() if holds]
    for group in [head, *spec.get("workerGroupSpecs", [])]:
        texts += _refuse_group(group, is_scaled=is_scaled or group is head, is_v2=is_v2)
    return texts


def _refuse_group(group: dict[str, Any], *, is_scaled: bool, is_v2: bool) -> list[str]:
    pod, start = group["template"]["spec"], set(group.get("rayStartParams", {}))
    least, most = group.get("minReplicas"), group.get("maxReplicas")
    found = {
        "a group without a container": not pod["containers"],
        "resources in rayStartParams and the group": "resources" in group
        and bool({"num-cpus", "num-gpus", "memory", "resources"} & start),
        "labels in rayStartParams": "labels" in start,
        "restartPolicy with autoscaler v2": is_v2 and pod.get("restartPolicy", "Never") != "Never",
        "no minReplicas or maxReplicas": not is_scaled and None in (least, most),
        "negative replicas": min(least or 0, most or 0) < 0,
        "minReplicas above maxReplicas": None not in (least, most) and least > most,
        "suspend needs a feature gate": bool(group.get("suspend")),
    }
    return [text for text, holds in found.items() if holds]
