"""KubeRay's schemas, where they are at hand, made strict: a field they do not name is an error."""

from __future__ import annotations

import functools
import gzip
import json
import os
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
