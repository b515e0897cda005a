"""The manifests: Kubernetes's own schemas, and what a cluster of three needs to hold together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.deploy.watched import DEPLOY

from unimeter.server.config import read_environment
from unimeter.server.members import parse_peers

HERE = DEPLOY / "kubernetes"
VERSIONS = ("1.31", "1.34")
"""Of Kubernetes: the oldest whose StatefulSets count from 1 for good, and a new one."""

kubernetes_validate = pytest.importorskip("kubernetes_validate")


def resources() -> list[str]:
    found: list[str] = yaml.safe_load((HERE / "kustomization.yaml").read_text())["resources"]
    return found


def documents() -> list[dict[str, Any]]:
    return [one for name in resources() for one in yaml.safe_load_all((HERE / name).read_text())]


def one(kind: str, name: str = "") -> Any:
    (found,) = [
        document
        for document in documents()
        if document["kind"] == kind and name in ("", document["metadata"]["name"])
    ]
    return found


def pod() -> Any:
    return one("StatefulSet")["spec"]["template"]["spec"]


def container() -> Any:
    (found,) = pod()["containers"]
    return found


def environment(ordinal: int = 1) -> dict[str, str]:
    """The variables of one pod, with what Kubernetes puts in their place."""
    found: dict[str, str] = {}
    for variable in container()["env"]:
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        given = {
            "metadata.name": f"unimeter-{ordinal}",
            "metadata.labels['apps.kubernetes.io/pod-index']": str(ordinal),
        }
        value = given[path] if path else variable["value"]
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
    return found


# --- form ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", documents(), ids=lambda one: one["kind"])
def test_document_is_what_kubernetes_takes(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    document = one("StatefulSet")
    document["spec"]["template"]["spec"]["terminationGraceSeconds"] = 90
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_every_manifest_is_in_the_kustomization() -> None:
    there = {path.name for path in HERE.glob("*.yaml")} - {"kustomization.yaml"}
    assert there == set(resources())
    for document in documents():
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == one("Namespace")["metadata"]["name"]


# --- a cluster -------------------------------------------------------------------------------


def test_each_pod_finds_itself_among_its_peers() -> None:
    spec = one("StatefulSet")["spec"]
    first, count = spec["ordinals"]["start"], spec["replicas"]
    for ordinal in range(first, first + count):
        options = read_environment(environment(ordinal))
        places = parse_peers(options["peers"])
        assert len(places) == count
        assert options["node_id"] == ordinal
        assert places[ordinal][0] == f"unimeter-{ordinal}.{spec['serviceName']}"
        assert options["advertise"].startswith(f"unimeter-{ordinal}.{spec['serviceName']}:")


def test_the_options_of_a_pod_are_a_config(tmp_path: Path) -> None:
    from unimeter.server.config import Config

    for ordinal in (1, 2, 3):
        config = Config(**read_environment(environment(ordinal)))
        assert config.is_cluster and not config.insecure
        assert config.bind == config.peer_bind == "0.0.0.0"
        assert config.admin_key_file and config.cluster_secret_file


def test_names_resolve_before_a_pod_is_ready() -> None:
    spec = one("StatefulSet")["spec"]
    headless = one("Service", spec["serviceName"])["spec"]
    assert headless["clusterIP"] == "None" and headless["publishNotReadyAddresses"] is True
    assert spec["podManagementPolicy"] == "Parallel", "the first start waits for all"
    assert "publishNotReadyAddresses" not in one("Service", "unimeter")["spec"]


def test_services_and_policies_choose_the_pods() -> None:
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        one("StatefulSet")["spec"]["selector"]["matchLabels"],
        one("Service", "nodes")["spec"]["selector"],
        one("Service", "unimeter")["spec"]["selector"],
        one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        pod()["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0][
            "labelSelector"
        ]["matchLabels"],
    ]
    assert all(selector == labels for selector in selectors)


def test_ports_are_those_of_the_options() -> None:
    options = read_environment(environment())
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"clients": 7001, "peers": 7101, "http": 9090}
    assert options["advertise"].endswith(f":{ports['clients']}")
    assert {port for _, port in parse_peers(options["peers"]).values()} == {ports["peers"]}
    for service in ("nodes", "unimeter"):
        for port in one("Service", service)["spec"]["ports"]:
            assert port["targetPort"] in ports and port["port"] == ports[port["targetPort"]]
    named = {
        port["port"] for rule in one("NetworkPolicy")["spec"]["ingress"] for port in rule["ports"]
    }
    assert named == set(ports)


def test_peers_are_let_in_from_peers_only() -> None:
    for rule in one("NetworkPolicy")["spec"]["ingress"]:
        if any(port["port"] == "peers" for port in rule["ports"]):
            (source,) = rule["from"]
            assert source["podSelector"]["matchLabels"] and len(rule["ports"]) == 1


def test_probes_ask_what_the_node_answers() -> None:
    from unimeter.server.web import probes

    routes = {endpoint.path for endpoint in probes.endpoints(*[lambda: (200, "", b"")] * 3)}
    assert container()["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container()["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container()["startupProbe"]["httpGet"]["path"] == "/health"
    assert {"/ready", "/health"} <= routes
    liveness = container()["livenessProbe"]
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30, "a pause is no death"


def test_a_stop_has_time_and_takes_one_node_at_once() -> None:
    from unimeter.server.cluster import TRANSFER_SECONDS
    from unimeter.server.server import DRAIN_SECONDS

    needed = TRANSFER_SECONDS + 3 * DRAIN_SECONDS + 30  # and a last snapshot
    assert pod()["terminationGracePeriodSeconds"] >= needed
    assert "lifecycle" not in container()
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert one("StatefulSet")["spec"]["updateStrategy"]["type"] == "RollingUpdate"


# --- safety ------------------------------------------------------------------------------------


def test_a_pod_may_do_nothing_but_its_work() -> None:
    assert pod()["automountServiceAccountToken"] is False and pod()["enableServiceLinks"] is False
    context = pod()["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == context["fsGroup"] == 10001
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    own = container()["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    image = (DEPLOY / "docker" / "Dockerfile").read_text()
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in image


def test_secrets_are_files_of_a_secret() -> None:
    (volume,) = [volume for volume in pod()["volumes"] if "secret" in volume]
    (mount,) = [mount for mount in container()["volumeMounts"] if mount["name"] == volume["name"]]
    assert mount["readOnly"] and volume["secret"]["defaultMode"] == 0o440
    files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
    options = read_environment(environment())
    assert files == {options["admin_key_file"], options["cluster_secret_file"]}
    assert not any(document["kind"] == "Secret" for document in documents())


def test_data_outlives_the_pods() -> None:
    spec = one("StatefulSet")["spec"]
    assert set(spec["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    (claim,) = spec["volumeClaimTemplates"]
    (mount,) = [
        mount for mount in container()["volumeMounts"] if mount["name"] == claim["metadata"]["name"]
    ]
    assert environment()["UNIMETER_DATA_DIR"].startswith(mount["mountPath"])


# --- TLS -------------------------------------------------------------------------------------


def test_the_patch_for_tls_fits_what_it_patches() -> None:
    kustomization = yaml.safe_load((HERE / "tls" / "kustomization.yaml").read_text())
    assert kustomization["resources"] == ["../"]
    (named,) = kustomization["patches"]
    patch = yaml.safe_load((HERE / "tls" / named["path"]).read_text())
    assert patch["metadata"] == {
        key: one("StatefulSet")["metadata"][key] for key in patch["metadata"]
    }
    spec = patch["spec"]["template"]["spec"]
    (changed,) = spec["containers"]
    assert changed["name"] == container()["name"]
    options = read_environment({each["name"]: each["value"] for each in changed["env"]})
    assert set(options) == {"tls_cert", "tls_key", "tls_ca", "peer_tls"} and options["peer_tls"]
    (mount,) = changed["volumeMounts"]
    assert all(
        options[name].startswith(mount["mountPath"]) for name in ("tls_cert", "tls_key", "tls_ca")
    )
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert changed[probe]["httpGet"]["scheme"] == "HTTPS"
        path = container()[probe]["httpGet"]["path"]
        assert changed[probe]["httpGet"]["path"] == path
