"""The Helm chart, rendered by Helm itself (its Go library, in helm-python-sdk) and checked: lint, schemas, policies.

Objects of Kubernetes are checked against its own schemas (kubernetes-validate). KEDA's and the Prometheus operator's
are not among these: their fields are checked by what they are made for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import FOREIGN, PREFIX, Settings, load
from support.pages import blocks

helm_python = pytest.importorskip("helm_python", reason="needs helm-python-sdk (extra `dev`)", exc_type=ImportError)
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate (extra `dev`)")

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "plaudit"
TOOLS = f"{ROOT / '.make' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
PROMTOOL, AMTOOL = shutil.which("promtool", path=TOOLS), shutil.which("amtool", path=TOOLS)
CUSTOM = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1")
OLDEST, NEWEST = "1.30.0", "1.36.0"
EVERYTHING: dict[str, Any] = {
    "image": {"registry": "registry.example.org/rl/", "pullSecrets": ["pull"]},
    "tenants": [{"name": "a", "key": "key-a"}, {"name": "b", "key": "key-b"}],
    "redis": {
        "enabled": False,
        "serviceUrl": "rediss://service:$(REDIS_PASSWORD)@redis.example.org:6380/0",
        "executorUrl": "rediss://executor:$(REDIS_PASSWORD)@redis.example.org:6380/0",
        "egress": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
        "port": 6380,
    },
    "api": {
        "settings": {"PLAUDIT_LOG_LEVEL": "warning"},
        "ingressFrom": [{"namespaceSelector": {"matchLabels": {"team": "rl"}}}],
    },
    "scorers": [
        {"name": "default", "model": "default=/models/a", "gpus": 1, "modelClaim": "models"},
        {"name": "steps", "model": "steps=/models/b", "settings": {"PLAUDIT_DTYPE": "bfloat16"}},
    ],
    "executors": [
        {"name": "strong"},
        {"name": "rootless", "isolation": "userns", "replicas": 3, "nodeSelector": {}, "tolerations": []},
        {"name": "guests", "isolation": "vm", "vm": {"imageClaim": "guest"}, "runtimeClassName": "kvm"},
    ],
    "autoscaling": {"enabled": True},
    "resourceQuota": {"requests.cpu": "64", "pods": "40"},
    "monitoring": {"podMonitors": True, "rules": True, "labels": {"release": "p"}, "alertmanager": {"enabled": True}},
}
PAGE = ROOT / "docs" / "kubernetes.md"
IN_DOCS = {f"docs, line {block.line}": block.code for block in blocks(PAGE) if block.info == "yaml values"}
CASES = {"defaults": "{}", "everything": json.dumps(EVERYTHING)} | {
    name: json.dumps(yaml.safe_load(text)) for name, text in IN_DOCS.items()
}


@cache
def rendered(values: str) -> tuple[dict[str, Any], ...]:
    """The chart's objects as a release `rl` would have them."""
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(json.loads(values))
        files = chart.render(json.loads(values), name="rl", namespace="plaudit")
    return tuple(
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document is not None
    )


@pytest.fixture(params=CASES)
def objects(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    return rendered(CASES[request.param])


def of_kind(objects: tuple[dict[str, Any], ...], *kinds: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] in kinds}


def pods(objects: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, pod and container of every workload."""
    for name, workload in of_kind(objects, "Deployment", "StatefulSet").items():
        spec = workload["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        yield name, spec, container


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container["env"]}


# --- Helm and Kubernetes accept it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_the_chart_without_a_warning(case: str) -> None:
    report = helm_python.lint(str(CHART), json.loads(CASES[case]), strict=True, namespace="plaudit")
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_what_kubernetes_schemas_say(objects: tuple[dict[str, Any], ...], version: str) -> None:
    checked = [item for item in objects if item["apiVersion"] not in CUSTOM]
    for item in checked:
        kubernetes_validate.validate(item, version, strict=True)
    assert {"Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {item["kind"] for item in checked}


def test_the_schema_check_finds_a_typo() -> None:
    api = json.loads(json.dumps(of_kind(rendered("{}"), "Deployment")["rl-api"]))
    api["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(api, NEWEST, strict=True)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"excutors": []}, "excutors"),
        ({"executors": [{"name": "a", "isolation": "none"}]}, "isolation"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"redis": {"image": "redis"}}, "image"),
        ({"tenants": []}, "tenants"),
        ({"api": {"settings": {"LOG_LEVEL": "info"}}}, "LOG_LEVEL"),
        ({"scorers": [{"model": "default=/x"}]}, "name"),
        (
            {"executors": [{"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}]},
            "memory",
        ),
    ],
)
def test_values_that_are_wrong_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with helm_python.Chart.load(str(CHART)) as chart, pytest.raises(helm_python.HelmError, match=named):
        chart.validate_schema(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"redis": {"enabled": False}}, r"redis\.serviceUrl"),
        ({"executors": [{"name": "a", "isolation": "vm"}]}, r"vm\.imageClaim"),
    ],
)
def test_what_a_choice_needs_is_asked_for_by_name(values: dict[str, Any], named: str) -> None:
    with helm_python.Chart.load(str(CHART)) as chart, pytest.raises(helm_python.HelmError, match=named):
        chart.render(values, name="rl", namespace="plaudit")


# --- policies ---------------------------------------------------------------------------------------------------------


def test_no_pod_gets_a_token_or_the_variables_of_services(objects: tuple[dict[str, Any], ...]) -> None:
    for name, pod, _ in pods(objects):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert "serviceAccountName" not in pod, name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), name


def test_every_root_is_read_only_and_every_image_has_a_tag(objects: tuple[dict[str, Any], ...]) -> None:
    for name, _, container in pods(objects):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert re.search(r"[^/]:(?!latest$)[\w.-]+$", container["image"]), name


def test_only_the_executors_that_ask_for_it_are_privileged(objects: tuple[dict[str, Any], ...]) -> None:
    privileged = {name for name, _, container in pods(objects) if container["securityContext"].get("privileged")}
    assert privileged in ({"rl-executor-default"}, {"rl-executor-strong"}, {"rl-executor-metal"})
    for name, pod, container in pods(objects):
        if name in privileged:
            continue
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert (pod.get("securityContext", {}) | security)["runAsNonRoot"] is True, name
        assert (pod.get("securityContext", {}) | security)["seccompProfile"]["type"] != "Unconfined", name


def test_only_a_pod_with_a_user_namespace_unmasks_proc() -> None:
    contexts = {
        name: (pod, container["securityContext"]) for name, pod, container in pods(rendered(CASES["everything"]))
    }
    unmasked = {name for name, (_, security) in contexts.items() if security.get("procMount") == "Unmasked"}
    assert unmasked == {"rl-executor-rootless"}
    pod, security = contexts["rl-executor-rootless"]
    assert pod["hostUsers"] is False
    profile = Path(security["seccompProfile"]["localhostProfile"])
    assert (DEPLOY / profile.name).is_file()


def test_resources_and_probes_are_set_everywhere(objects: tuple[dict[str, Any], ...]) -> None:
    for name, _, container in pods(objects):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
        assert "memory" in container["resources"]["limits"], name
        assert {"livenessProbe", "readinessProbe"} <= set(container), name


def test_the_api_is_ready_when_ready_says_so(objects: tuple[dict[str, Any], ...]) -> None:
    (api,) = (container for name, _, container in pods(objects) if name == "rl-api")
    assert api["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == "/health"  # a queue that is away restarts no API


def test_pods_have_longer_to_stop_than_they_take_to_drain(objects: tuple[dict[str, Any], ...]) -> None:
    for name, pod, _ in pods(objects):
        assert pod["terminationGracePeriodSeconds"] > Settings().drain_s, name


def test_executors_reach_nothing_but_redis_and_names(objects: tuple[dict[str, Any], ...]) -> None:
    policies = of_kind(objects, "NetworkPolicy")
    assert policies["rl-deny-all"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    egress = [policy for policy in policies.values() if "egress" in policy["spec"]]
    (only,) = egress
    ports = {port["port"] for rule in only["spec"]["egress"] for port in rule["ports"]}
    assert ports in ({6379, 53}, {6380, 53})
    assert all(rule["to"] for rule in only["spec"]["egress"])


def test_the_executors_secret_is_its_own_password_alone(objects: tuple[dict[str, Any], ...]) -> None:
    for name, _, container in pods(objects):
        if "executor" in name:
            keys = [entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry]
            assert keys == ["redis-executor-password"], name


def test_selectors_find_their_pods_and_no_others(objects: tuple[dict[str, Any], ...]) -> None:
    labels = {
        name: workload["spec"]["template"]["metadata"]["labels"]
        for name, workload in of_kind(objects, "Deployment", "StatefulSet").items()
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [name for name, own in labels.items() if selector.items() <= own.items()]

    for item in objects:
        name = item["metadata"]["name"]
        if item["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert found(item["spec"]["selector"]["matchLabels"]) == [name]
        if item["kind"] == "Service":
            assert found(item["spec"]["selector"]) == [name]


# --- what the pods are told -------------------------------------------------------------------------------------------


def test_every_variable_is_a_setting_and_its_value_is_accepted(objects: tuple[dict[str, Any], ...]) -> None:
    for name, _, container in pods(objects):
        told = {key: value for key, value in environment(container).items() if key.startswith(PREFIX)}
        told = {key: value or "secret" for key, value in told.items()}
        assert set(told) - FOREIGN <= {f"{PREFIX}{setting.upper()}" for setting in Settings.model_fields}, name
        settings = load(environ=told)
        if "executor" in name:
            assert settings.isolation_accept in ("strong", "userns", "vm"), name


def test_an_executor_accepts_the_level_that_its_pod_gives() -> None:
    told = {name: environment(container) for name, _, container in pods(rendered(CASES["everything"]))}
    accepted = {name: env.get("PLAUDIT_ISOLATION_ACCEPT") for name, env in told.items() if "executor" in name}
    assert accepted == {"rl-executor-strong": "strong", "rl-executor-rootless": "userns", "rl-executor-guests": "vm"}
    (guests,) = (c for name, _, c in pods(rendered(CASES["everything"])) if name == "rl-executor-guests")
    assert guests["resources"]["limits"]["devices.kubevirt.io/kvm"] == 1
    assert environment(guests)["PLAUDIT_VM_IMAGE"] == "/vm/image"


def test_every_tenant_has_a_key_of_the_secret() -> None:
    (api,) = (container for name, _, container in pods(rendered(CASES["everything"])) if name == "rl-api")
    entries = {entry["name"]: entry for entry in api["env"]}
    assert entries["PLAUDIT_API_KEY"]["value"] == "$(TENANT_0_KEY),$(TENANT_1_KEY)"
    order = [entry["name"] for entry in api["env"]]
    for number, key in enumerate(("key-a", "key-b")):
        assert entries[f"TENANT_{number}_KEY"]["valueFrom"]["secretKeyRef"]["key"] == key
        assert order.index(f"TENANT_{number}_KEY") < order.index("PLAUDIT_API_KEY")  # or it is not filled in


def test_the_queues_default_bounds_are_the_services() -> None:
    queues = yaml.safe_load((CHART / "values.yaml").read_text())["queues"]
    own = Settings()
    assert queues == {
        "maxQueuedExecute": own.max_queued_execute,
        "maxQueuedExecuteCpuS": own.max_queued_execute_cpu_s,
        "maxQueuedScore": own.max_queued_score,
        "maxQueuedScoreTokens": own.max_queued_score_tokens,
    }


def test_workers_scale_on_depth_and_on_age() -> None:
    objects = rendered(CASES["everything"])
    scaled = of_kind(objects, "ScaledObject")
    assert set(scaled) == {name for name in of_kind(objects, "Deployment") if name != "rl-api"}
    metrics = (ROOT / "service" / "metrics.py").read_text()
    for name, item in scaled.items():
        assert item["spec"]["scaleTargetRef"]["name"] == name
        depth, age = item["spec"]["triggers"]
        assert (depth["metricType"], age["metricType"]) == ("AverageValue", "Value")
        assert "plaudit_queue_depth{" in depth["metadata"]["query"]
        assert "plaudit_queue_oldest_seconds{" in age["metadata"]["query"]
        for trigger in (depth, age):
            assert float(trigger["metadata"]["threshold"]) > 0
            used = re.findall(r"plaudit_\w+", trigger["metadata"]["query"])
            assert all(f'"{metric}"' in metrics for metric in used)
    assert 'queue="score:steps"' in scaled["rl-scorer-steps"]["spec"]["triggers"][0]["metadata"]["query"]
    deployments = of_kind(objects, "Deployment")
    assert all("replicas" not in deployments[name]["spec"] for name in scaled)  # an upgrade resets nothing


# --- files that are in two places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["redis/users.acl", "redis/start.sh", "prometheus/rules.yml"])
def test_the_charts_copy_of_a_file_is_the_file(name: str) -> None:
    assert (CHART / "files" / Path(name).name).read_text() == (DEPLOY / name).read_text()


def test_the_chart_has_the_version_of_plaudit() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^fallback_version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert about["appVersion"] == about["version"] == version[1]


# --- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool; run .ci/extract")
def test_promtool_accepts_the_charts_rules(tmp_path: Path) -> None:
    (rules,) = of_kind(rendered(CASES["everything"]), "PrometheusRule").values()
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules["spec"]))
    command = [str(PROMTOOL), "check", "rules", str(tmp_path / "rules.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pods_are_scraped_under_the_names_that_the_rules_use() -> None:
    (monitor,) = of_kind(rendered(CASES["everything"]), "PodMonitor").values()
    named = re.findall(r'job=~?"(plaudit-[^"]+)"', (DEPLOY / "prometheus" / "rules.yml").read_text())
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        for component in ("api", "scorer-default", "executor-rootless"):
            match = re.fullmatch(relabeling["regex"], component)
            assert match is not None
            job = relabeling["replacement"].replace("$1", match[1])
            assert any(re.fullmatch(name, job) for name in named), job


def in_alertmanagers_words(value: Any) -> Any:
    """Part of an AlertmanagerConfig as Alertmanager's own file has it, which is what the operator makes of it."""
    if isinstance(value, list):
        return [in_alertmanagers_words(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "matchType" in value:
        return f"{value['name']} {value['matchType']} {json.dumps(value['value'])}"
    names = {"sourceMatch": "source_matchers", "targetMatch": "target_matchers"}
    snake = {name: re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name) for name in value} | names
    return {snake[name]: in_alertmanagers_words(part) for name, part in value.items()}


def alertmanager_of_the_chart() -> dict[str, Any]:
    """The AlertmanagerConfig as a file of Alertmanager. Its URLs are in a secret."""
    (config,) = of_kind(rendered(CASES["everything"]), "AlertmanagerConfig").values()
    spec: dict[str, Any] = in_alertmanagers_words(config["spec"])
    for receiver in spec["receivers"]:
        receiver["webhook_configs"] = [{"url": "http://127.0.0.1:9/"}]
    return spec


def test_the_charts_alerts_go_where_those_of_compose_go_and_silence_the_same() -> None:
    compose = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    chart = alertmanager_of_the_chart()
    assert chart["route"] == compose["route"]
    assert chart["inhibit_rules"] == compose["inhibit_rules"]


@pytest.mark.skipif(AMTOOL is None, reason="needs amtool; run .ci/extract")
def test_alertmanager_accepts_the_charts_file_and_sends_pages_to_the_pager(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(yaml.safe_dump(alertmanager_of_the_chart()))

    def amtool(*words: str) -> str:
        done = subprocess.run([str(AMTOOL), *words], cwd=path.parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    assert "SUCCESS" in amtool("check-config", str(path))
    for severity, receiver in (("page", "page"), ("ticket", "ticket")):
        routed = amtool("config", "routes", "test", f"--config.file={path}", f"severity={severity}", "alertname=A")
        assert routed == receiver


def test_every_alert_that_is_silenced_by_another_exists() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    alerts = {rule["alert"] for group in document["groups"] for rule in group["rules"]}
    for rule in alertmanager_of_the_chart()["inhibit_rules"]:
        for side in ("source_matchers", "target_matchers"):
            named = {name for matcher in rule[side] for name in re.findall(r"Plaudit\w+", matcher)}
            assert named
            assert named <= alerts
