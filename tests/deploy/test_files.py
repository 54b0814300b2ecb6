"""deploy/: what its files say about each other, and about the code."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from prefect.utilities.templating import apply_values

from flows.config.distill import checked, load_config
from flows.nodes import train_node
from flows.shards import sample_shard
from tests.deploy import compose

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = ("1.32", "1.37")  # oldest and newest whose schemas we check against


def deployments(file: str = "prefect.yaml") -> list[dict[str, Any]]:
    content = yaml.safe_load((DEPLOY / file).read_text(encoding="utf-8"))
    return list(content["deployments"])


def job_template() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEPLOY / "kubernetes-job-template.json").read_text(encoding="utf-8"))
    return content


def test_the_deployments_run_the_lab_as_it_is_shipped() -> None:
    for deployment in deployments():
        config = checked(deployment["parameters"]["config"])
        assert config == load_config("lab", ["compare=[]"]), deployment["name"]


def test_shards_and_nodes_have_pools_of_their_own() -> None:
    """A run that waits for its shards keeps its place in its pool: in a pool of one place they would never begin."""
    pools = {one["name"]: one["work_pool"]["name"] for one in deployments("shards.yaml")}
    assert pools.keys() == {one["name"] for one in deployments()} | {"kubernetes-gpu"}
    assert not set(pools.values()) & {one["work_pool"]["name"] for one in deployments()}
    others = {one["work_pool"]["name"] for one in deployments("nodes.yaml")}
    assert not others & (set(pools.values()) | {one["work_pool"]["name"] for one in deployments()})


@pytest.mark.parametrize(("file", "flow"), [("shards.yaml", sample_shard), ("nodes.yaml", train_node)])
def test_deployments_name_the_flow_that_they_run(file: str, flow: object) -> None:
    for one in deployments(file):
        module, name = one["entrypoint"].rsplit(".", 1)
        assert getattr(importlib.import_module(module), name) is flow


def test_the_job_template_declares_what_it_uses_and_uses_what_it_declares() -> None:
    template = job_template()
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


def test_a_deployment_sets_no_job_variable_that_its_pool_does_not_know() -> None:
    for one in [*deployments(), *deployments("shards.yaml"), *deployments("nodes.yaml")]:
        if one["name"].startswith("kubernetes"):
            variables = one["work_pool"]["job_variables"]
            assert variables.keys() <= job_template()["variables"]["properties"].keys()
            assert set(job_template()["variables"]["required"]) <= variables.keys()


def rendered_job(variables: dict[str, Any]) -> dict[str, Any]:
    """The job that Prefect's worker would ask the cluster for."""
    template = job_template()
    defaults = {name: one["default"] for name, one in template["variables"]["properties"].items() if "default" in one}
    own = {"name": "calm-otter", "command": ["prefect", "flow-run", "execute"], "env": [{"name": "A", "value": "b"}]}
    manifest: dict[str, Any] = apply_values(template["job_configuration"], defaults | own | variables)["job_manifest"]
    return manifest


@pytest.mark.parametrize("version", KUBERNETES)
def test_what_a_cluster_is_asked_for_is_what_kubernetes_knows(version: str) -> None:
    files = [*deployments(), *deployments("shards.yaml"), *deployments("nodes.yaml")]
    jobs = [one["work_pool"]["job_variables"] for one in files if one["name"].startswith("kubernetes")]
    assert len(jobs) == 4
    others = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    for manifest in [*map(rendered_job, jobs), *others]:
        kubernetes_validate.validate(manifest, version, strict=True)
    pods = [rendered_job(job)["spec"]["template"]["spec"] for job in jobs]
    assert [pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in pods] == ["0", "0", "1", "8"]
    gpu = pods[-1]
    assert gpu["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_job_that_kubernetes_does_not_know_is_found() -> None:
    manifest = rendered_job({"image": "x"})
    manifest["spec"]["template"]["spec"]["tolerations"] = {"key": "no list"}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES[0], strict=True)


def test_the_claim_that_jobs_mount_is_the_one_that_is_made() -> None:
    namespace, claim = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    defaults = {name: one.get("default") for name, one in job_template()["variables"]["properties"].items()}
    assert defaults["namespace"] == namespace["metadata"]["name"] == claim["metadata"]["namespace"]
    assert defaults["state_claim"] == claim["metadata"]["name"]


def test_a_job_runs_without_rights() -> None:
    pod = job_template()["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert container["name"] == "prefect-job", "the worker looks for this name"


def test_every_secret_of_the_compose_file_is_empty_in_the_example() -> None:
    lines = (DEPLOY / "example.env").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert {name for name in compose.required_variables() if given[name] == ""} == compose.required_variables()


def test_compose_publishes_on_this_machine_only_and_pins_every_image() -> None:
    for name, service in compose.compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert re.search(r":v?\d+\.\d+[\w.-]*\}?$", service["image"]), service["image"]
        assert "healthcheck" in service or service["restart"] == "no", name


def test_the_builder_gets_what_the_image_copies_and_no_more() -> None:
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.M):
        copied |= {re.sub(r"/\$.*", "", word) for word in line.split()}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
