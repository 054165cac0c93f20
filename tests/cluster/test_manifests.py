"""Every file of cluster/: schema, security, and the commands as the jobs' own parsers read them."""

import argparse
import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay import PROJECT, SCHEMAS, complaints, pod_template, refusals, schema
from gangru_dist.commands import cli
from gangru_dist.commands.jobs import JOBS
from gangru_dist.config import sources
from gangru_dist.config.settings import ResourcesConfig

CLUSTER = PROJECT / "cluster"
RAY_UP = sorted(CLUSTER.glob("*.yaml"))
KUBERNETES = sorted((CLUSTER / "kuberay").glob("*.yaml"))
needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="no KubeRay schemas: set GANGRU_KUBERAY_SCHEMAS"
)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def find(kind: str, name: str) -> dict[str, Any]:
    (document,) = (
        d for _, d in ALL if (d["kind"], d.get("metadata", {}).get("name", "")) == (kind, name)
    )
    return document


def put_together() -> None:
    """As kustomization.yaml does, which a test holds against kubectl: the whole monthly job."""
    for rule in find("Kustomization", "")["replacements"]:
        found: Any = find(rule["source"]["kind"], rule["source"]["name"])
        for key in rule["source"]["fieldPath"].split("."):
            found = found[key]
        for target in rule["targets"]:
            _, key = target["fieldPaths"][0].split(".")
            find(**target["select"])["spec"][key] = found


ALL = [(path, document) for path in KUBERNETES for document in documents(path)]
put_together()
OURS = [(path, d) for path, d in ALL if d["kind"] in ("RayCluster", "RayJob")]


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from walk(part)


def count_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * 1024 ** ("KMG".index(unit[0]) + 1)


GROUPS = [
    pytest.param(node, id=node.get("groupName", "head"))
    for node in walk(find("RayCluster", "gangru"))
    if "rayStartParams" in node
]


def named(pairs: list[tuple[Path, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(d, id=f"{path.stem}-{d['kind']}") for path, d in pairs]


def pods(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Specs of all pods that a document leads to."""
    return [node for node in walk(document) if "containers" in node]


@needs_schemas
class TestSchema:
    @pytest.mark.parametrize("document", named(OURS))
    def test_kuberay(self, document: dict[str, Any]) -> None:
        assert complaints(document, schema(document["kind"])) == []

    def test_the_cronjobs_pod(self) -> None:
        cronjob = next(d for _, d in ALL if d["kind"] == "CronJob")
        template = cronjob["spec"]["jobTemplate"]["spec"]["template"]
        assert complaints(template, pod_template()) == []

    @pytest.mark.parametrize("document", named(OURS))
    def test_a_misspelt_field_fails(self, document: dict[str, Any]) -> None:
        """Any one key, at any depth where the schema names keys, with a letter doubled."""
        against = schema(document["kind"])
        for number, node in enumerate(walk(document["spec"])):
            key = next(iter(node), None)
            if key is None or number % 3:  # every third: seconds, not a minute
                continue
            wrong = copy.deepcopy(document)
            target = list(walk(wrong["spec"]))[number]
            target[key + key[-1]] = target.pop(key)
            if not self.takes_any_key(node):
                assert complaints(wrong, against), key

    @staticmethod
    def takes_any_key(node: dict[str, Any]) -> bool:
        """Maps of free keys: labels, quantities, Ray's start flags."""
        free = ("cpu", "app.kubernetes.io/name", "ray.io/cluster", "karpenter.sh/do-not-disrupt")
        return any(key in node for key in (*free, "object-store-memory"))


class TestOperator:
    """The rules of `ValidateRayJobSpec` and `ValidateRayClusterSpec`."""

    @pytest.mark.parametrize("document", named(OURS))
    def test_kuberay_takes_it(self, document: dict[str, Any]) -> None:
        assert refusals(document) == []

    @pytest.mark.parametrize(
        ("kind", "name", "place", "value", "says"),
        [
            ("RayJob", "gangru-train", "backoffLimit", 2, "backoffLimit with clusterSelector"),
            ("RayJob", "gangru-train", "suspend", True, "suspend with clusterSelector"),
            ("RayJob", "gangru-train", "clusterSelector", {}, "clusterSelector names no cluster"),
            ("RayJob", "gangru-monthly", "shutdownAfterJobFinishes", False, "shutdownAfter"),
            ("RayJob", "gangru-monthly", "activeDeadlineSeconds", 0, "activeDeadlineSeconds"),
            ("RayJob", "gangru-monthly", "deletionStrategy", {}, "needs a feature gate"),
            ("RayJob", "gangru-monthly", "rayClusterSpec.rayVersion", "2.51.1", ">= 2.52"),
            ("RayCluster", "gangru", "tlsOptions", {}, "a feature gate is off"),
            ("RayCluster", "gangru", "headGroupSpec.resources", {"CPU": "0"}, "in rayStartParams"),
            ("RayCluster", "gangru", "headGroupSpec.template.spec.restartPolicy", "Always", "v2"),
            ("RayCluster", "gangru", "headGroupSpec.rayStartParams.labels", "a=b", "labels in"),
        ],
    )  # fmt: skip
    def test_what_it_refuses(
        self, kind: str, name: str, place: str, value: object, says: str
    ) -> None:
        wrong = copy.deepcopy(find(kind, name))
        *path, last = place.split(".")
        node = wrong["spec"]
        for key in path:
            node = node[key]
        node[last] = value
        assert any(says in text for text in refusals(wrong)), refusals(wrong)

    def test_a_name_leaves_room_for_what_kuberay_appends(self) -> None:
        wrong = copy.deepcopy(find("RayJob", "gangru-train"))
        wrong["metadata"]["name"] = "g" * 48
        assert refusals(wrong) == ["name is too long"]

    @pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
    def test_kustomize_puts_the_monthly_job_together(self) -> None:
        done = subprocess.run(
            ["kubectl", "kustomize", CLUSTER / "kuberay"], capture_output=True, text=True
        )
        assert list(yaml.safe_load_all(done.stdout)) == [find("RayJob", "gangru-monthly")]


class TestRayUp:
    @pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
    def test_rays_own_check(self, path: Path) -> None:
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(prepare_config(yaml.safe_load(path.read_text())))

    @pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.stem)
    def test_a_misspelt_field_fails(self, path: Path) -> None:
        from jsonschema import ValidationError
        from ray.autoscaler._private.util import prepare_config, validate_config

        config = yaml.safe_load(path.read_text())
        config["max_worker"] = config.pop("max_workers")
        with pytest.raises(ValidationError, match="max_worker"):
            validate_config(prepare_config(config))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of a command, with its own flags."""
    return cli.build_parser(None, JOBS[name].flags)


CALL = (
    r"(?:python (?:/opt/gangru/)?jobs/\w+\.py|"
    r"\bgangru (?:pipeline|panel|train|tune|score|report)) --"
)


def commands() -> list[Any]:
    """(where, command, its words) of every call in manifests, scripts and documents."""
    found = [
        (path, document["spec"]["entrypoint"])
        for path, document in OURS
        if document["kind"] == "RayJob"
    ]
    texts = [CLUSTER / "README.md", CLUSTER / "slurm.sh", PROJECT / "README.md"]
    for path in [*texts, *PROJECT.glob("docs/[a-z]*.md"), *PROJECT.glob("docs/tutorials/*.md")]:
        text = path.read_text().replace("\\\n", " ")  # lines that go on
        found += [(path, line) for line in re.findall(rf"{CALL}[^`\n#|]*", text)]
    calls = [
        (path, shlex.split(line))
        for path, line in found
        if "--storage" in line
        and not re.search("factors:|diary:|(mine|feature).toml", line)
        and not {"…", "..."} & set(line.split())
    ]
    return [
        pytest.param(words, id=f"{path.stem}-{i}-{words[1]}")
        for i, (path, words) in enumerate(calls)
    ]


class TestCommands:
    @pytest.mark.parametrize("words", commands())
    def test_the_jobs_parser_and_settings_take_it(self, words: list[str]) -> None:
        script = PROJECT / words[1].removeprefix("/opt/gangru/")
        assert words[0] == "gangru" or script.exists()
        args = parser_of(script.stem).parse_args([w for w in words[2:] if w != "--dry-run"])
        files = [file for file in args.config or [] if "best.toml" not in file]
        sources.load(args.preset or "default", files, args.set)

    def test_the_check_has_teeth(self) -> None:
        with pytest.raises(SystemExit):
            parser_of("train").parse_args(["--storage", "s3://x/y", "--window", "x", "--stroage"])


class TestSecurity:
    @pytest.mark.parametrize("document", named([(p, d) for p, d in ALL if pods(d)]))
    def test_pods_are_restricted(self, document: dict[str, Any]) -> None:
        for pod in pods(document):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
            assert all("hostPath" not in volume for volume in pod.get("volumes", []))
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["readOnlyRootFilesystem"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert set(container["resources"]) == {"requests", "limits"}
                assert re.search(r":[^:/]*\d", container["image"]), "an image without a version"

    @pytest.mark.parametrize("document", named(OURS))
    def test_clusters_ask_for_tokens(self, document: dict[str, Any]) -> None:
        for spec in walk(document):
            if "headGroupSpec" in spec:
                assert spec["authOptions"] == {"mode": "token"}
                assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52, 0)
                assert "cpu" in {group["groupName"] for group in spec["workerGroupSpecs"]}
                assert spec["enableInTreeAutoscaling"] is True

    def test_who_may_talk_to_the_pods_is_named_with_its_namespace(self) -> None:
        policies = [d for _, d in ALL if d["kind"] == "NetworkPolicy"]
        peers = [node for d in policies for node in walk(d) if "namespaceSelector" in node]
        assert len(peers) == 3
        for peer in peers:
            (name,) = peer["namespaceSelector"]["matchLabels"]
            assert name == "kubernetes.io/metadata.name"
            assert peer["podSelector"]["matchLabels"]

    def test_the_head_may_touch_what_the_autoscaler_needs_and_nothing_else(self) -> None:
        (role,) = [
            d for _, d in ALL if d["kind"] == "Role" and d["metadata"]["name"] == "gangru-head"
        ]
        may = {(r, v) for rule in role["rules"] for r in rule["resources"] for v in rule["verbs"]}
        pods = {("pods", verb) for verb in ("get", "list", "watch", "patch")}
        assert may == pods | {("rayclusters", "get"), ("rayclusters", "patch")}

    @pytest.mark.parametrize("path", [*KUBERNETES, *RAY_UP], ids=lambda path: path.stem)
    def test_no_secret_is_in_a_manifest(self, path: Path) -> None:
        for document in documents(path):
            assert document.get("kind") != "Secret"
            for node in walk(document):
                text = json.dumps(node.get("env", [])) + json.dumps(node.get("entrypoint", ""))
                assert not re.search("key|secret|password|token", text, re.IGNORECASE), text


class TestProperties:
    def test_the_cronjob_mounts_the_jobs_manifest(self) -> None:
        cronjob = next(d for _, d in ALL if d["kind"] == "CronJob")
        pod = pods(cronjob)[0]
        source = pod["volumes"][0]["configMap"]["name"]
        place = f"{pod['containers'][0]['volumeMounts'][0]['mountPath']}/rayjob.yaml"
        assert place in pod["containers"][0]["args"]
        made = f"create configmap {source} --from-file=rayjob.yaml=/dev/stdin"
        assert made in (CLUSTER / "README.md").read_text()

    def test_the_head_works_on_nothing_and_not_on_spot_nodes(self) -> None:
        spec = find("RayCluster", "gangru")["spec"]
        head, (worker, *_) = spec["headGroupSpec"], spec["workerGroupSpecs"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        affinities = [g["template"]["spec"]["affinity"]["nodeAffinity"] for g in (head, worker)]
        assert all("DuringScheduling" in key for one in affinities for key in one)
        never, liked = (
            {(e["key"], e["values"][0], e["operator"]) for e in walk(one) if "operator" in e}
            for one in affinities
        )
        assert never == {(key, value, "NotIn") for key, value, _ in liked}
        assert len(never) == 4

    @pytest.mark.parametrize("group", GROUPS)
    def test_the_object_store_fits_into_shared_memory_and_the_pod(
        self, group: dict[str, Any]
    ) -> None:
        """Else Ray keeps it on disk; a worker of the default preset takes 1.9 GB (README).

        So does a driver, of which the head holds one at least, beside Ray's state and dashboard.
        """
        pod, store = group["template"]["spec"], int(group["rayStartParams"]["object-store-memory"])
        (volume,) = (v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm")
        (box,) = pod["containers"]
        limits = box["resources"]["limits"]
        shared, memory = count_bytes(volume["sizeLimit"]), count_bytes(limits["memory"])
        assert volume["medium"] == "Memory"
        assert {"name": "shm", "mountPath": "/dev/shm"} in box["volumeMounts"]
        assert store <= shared
        is_head = group["rayStartParams"].get("num-cpus") == "0"
        processes, rest = (1, 3e9) if is_head else (int(limits["cpu"]), 1e9)
        assert shared + processes * 1.9e9 + rest <= memory

    @pytest.mark.parametrize("group", GROUPS)
    def test_nobody_who_works_is_moved(self, group: dict[str, Any]) -> None:
        notes, labels = (group["template"]["metadata"][key] for key in ("annotations", "labels"))
        assert notes["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert notes["karpenter.sh/do-not-disrupt"] == "true"
        spec = find("PodDisruptionBudget", "gangru-head")["spec"]
        assert spec["minAvailable"] > 10  # of the heads of all clusters together
        budget = spec["selector"]["matchLabels"]
        assert budget.items() <= (labels | {"ray.io/node-type": "head"}).items()  # KubeRay's label
        monitor = find("PodMonitor", "gangru")["spec"]["selector"]["matchLabels"]
        assert monitor.items() <= labels.items()

    def test_disks_fit_their_machines(self) -> None:
        """Google's C3 and G2 machines take no pd-standard, the default."""
        kinds = yaml.safe_load((CLUSTER / "gcp.yaml").read_text())["available_node_types"]
        for kind in kinds.values():
            for disk in kind["node_config"]["disks"]:
                assert disk["initializeParams"]["diskType"].endswith("/pd-balanced")

    def test_the_head_of_ray_up_can_start_machines(self) -> None:
        """It needs the cloud's SDK, ssh and rsync, and rights that workers do not have."""
        image = (CLUSTER / "Dockerfile").read_text()
        assert "${RAY_UP:+openssh-client rsync}" in image
        for cloud, kit, key in (
            ("aws", "boto3", "IamInstanceProfile"),
            ("gcp", "google-api-python-client", "serviceAccounts"),
        ):
            text = (CLUSTER / f"{cloud}.yaml").read_text()
            assert f"RAY_UP={kit}" in text
            assert f"RAY_UP={kit}" in image
            kinds = yaml.safe_load(text)["available_node_types"]
            accounts = {name: str(kind["node_config"][key]) for name, kind in kinds.items()}
            assert "gangru-head" in accounts.pop("head")
            assert not any("head" in account for account in accounts.values())

    @pytest.mark.parametrize("group", GROUPS)
    def test_a_pods_disk_holds_its_workers_scratch_files(self, group: dict[str, Any]) -> None:
        (volume,) = (v for v in group["template"]["spec"]["volumes"] if v["name"] == "tmp")
        (container,) = group["template"]["spec"]["containers"]
        workers = int(container["resources"]["limits"]["cpu"])
        needed = workers * ResourcesConfig().scratch_gb * 1e9
        assert count_bytes(volume["emptyDir"]["sizeLimit"]) > needed

    def test_versions_agree_with_the_lock(self) -> None:
        lock = (PROJECT / "requirements.lock").read_text().splitlines()
        pins = dict(line.split("==") for line in lock if line)
        versions = {s["rayVersion"] for _, d in OURS for s in walk(d) if "rayVersion" in s}
        assert versions == {pins["ray"]}

    def test_scripts_pass_shellcheck(self) -> None:
        tool = Path(sys.executable).with_name("shellcheck")
        for script in [*CLUSTER.glob("*.sh"), PROJECT / ".ci/run", PROJECT / ".ci/audit"]:
            done = subprocess.run([tool, script], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout

    def test_the_image_is_pinned_and_not_root(self) -> None:
        text = (CLUSTER / "Dockerfile").read_text()
        assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
        assert text.count("FROM ${PYTHON_IMAGE}") == 2
        assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
        assert "--constraint requirements.lock" in text
        copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", text, re.MULTILINE)
        for name in " ".join(copied).split():
            assert (PROJECT / name).exists(), name
            assert f"!{name}" in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
