"""Compose, Dockerfile, manifests, rules and dashboards agree with each other and with the code.

Two tests hand the files to the tool that will read them: `docker-compose config` (it needs no daemon) and `promtool`.
`make test` puts both into .make/bin (.ci/extract). Where a tool is missing its test is skipped; all others always run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import FOREIGN, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
TOOLS = f"{ROOT / '.make' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
AMTOOL = shutil.which("amtool", path=TOOLS)
DOCKER_COMPOSE, PROMTOOL = shutil.which("docker-compose", path=TOOLS), shutil.which("promtool", path=TOOLS)
ALERT_URLS = ("ALERT_PAGE_URL", "ALERT_TICKET_URL")
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def interpolate(text: str, **values: str) -> str:
    """Compose's ${NAME}, ${NAME:-default} and ${NAME:?message}."""

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.group(1, 2, 3)
        return values.get(name) or (rest if kind == "-" else f"value-of-{name}")

    return re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", fill, text)


COMPOSE: dict[str, Any] = yaml.safe_load(interpolate(COMPOSE_TEXT))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def manifests() -> Iterator[dict[str, Any]]:
    for path in KUBERNETES:
        yield from yaml.safe_load_all(path.read_text())


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests():
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def metric_names() -> dict[str, set[str]]:
    """Family → the names of its samples, as service/metrics.py declares them."""
    text = (ROOT / "service" / "metrics.py").read_text()
    families: dict[str, set[str]] = {}
    for kind, name in re.findall(r"\b(Counter|Histogram|Gauge)\(\s*\"(plaudit_\w+)\"", text):
        samples = {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "Histogram" else {name}
        families[name] = samples
    for name in re.findall(r"^\s*\(\"(plaudit_\w+)\", \"", text, re.MULTILINE):
        families[name] = {name}
    return families


def used_metrics(text: str) -> set[str]:
    return set(re.findall(r"\bplaudit_[a-z_]+\b", text))


# --- the Dockerfile --------------------------------------------------------------------------------------------------


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_image_starts_the_process_that_the_contract_names_in_exec_form() -> None:
    entrypoints = {
        name: json.loads(match.group(1))
        for name, stage in stages().items()
        if (match := re.search(r"^ENTRYPOINT (.+)$", stage, re.MULTILINE))
    }
    assert entrypoints == {
        "api": ["plaudit", "serve"],
        "scorer": ["plaudit", "worker", "score"],
        "executor": ["plaudit", "worker", "execute"],
    }


def test_only_the_executor_runs_as_root() -> None:
    users = {name: re.findall(r"^USER (\w+)$", stage, re.MULTILINE) for name, stage in stages().items()}
    assert (users["api"], users["scorer"], users["executor"]) == (["plaudit"], ["plaudit"], ["root"])


def test_weights_enter_the_scorer_and_nothing_else() -> None:
    holding = [name for name, stage in stages().items() if re.search(r"^COPY .*\bmodels\b", stage, re.MULTILINE)]
    assert holding == ["scorer"]


def test_each_image_installs_its_own_extra_under_the_tested_pins() -> None:
    for name in ("api", "scorer", "executor"):
        assert re.search(rf"pip install .*-c /tmp/constraints.txt -r /tmp/{name}.txt", stages()[name])


def test_what_the_dockerfile_copies_is_let_through_by_dockerignore_and_exists() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {word for line in copies for word in line.split()}
    assert copied == allowed
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []


# --- compose ---------------------------------------------------------------------------------------------------------


def test_every_built_service_names_a_target_of_the_dockerfile() -> None:
    targets = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}
    assert targets == {"api": "api", "scorer": "scorer", "executor": "executor"}
    assert set(targets.values()) <= set(stages())


def test_every_plaudit_variable_is_a_setting() -> None:
    files = [ROOT / "Dockerfile", ROOT / "docker-compose.yml", DEPLOY / "compose.gpu.yml", *KUBERNETES]
    text = "\n".join(path.read_text() for path in files)
    # PLAUDIT_API_PORT is named in a comment as what Kubernetes would inject
    used = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", text)) - FOREIGN - {"PLAUDIT_API_PORT"}
    settings = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert sorted(used - settings) == []


def test_settings_in_compose_are_accepted_as_they_stand() -> None:
    from service.settings import load

    for name in ("api", "scorer", "executor"):
        environ = {key: value or "" for key, value in SERVICES[name]["environment"].items()}
        user, password = (
            ("executor", "REDIS_EXECUTOR_PASSWORD") if name == "executor" else ("service", "REDIS_PASSWORD")
        )
        assert load(environ=environ).redis_url == f"redis://{user}:value-of-{password}@redis:6379/0"


def test_the_executor_reaches_only_redis_and_prometheus() -> None:
    networks = set(SERVICES["executor"]["networks"])
    assert all(COMPOSE["networks"][name]["internal"] for name in networks)
    neighbours = {name for name, service in SERVICES.items() if networks & set(service["networks"])} - {"executor"}
    assert neighbours == {"redis", "prometheus"}


def test_the_executor_holds_no_key() -> None:
    assert not [name for name in SERVICES["executor"]["environment"] if "KEY" in name or "PASSWORD" in name]


def test_only_the_api_and_grafana_are_published_and_only_on_loopback() -> None:
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"api": ["127.0.0.1:8000:8000"], "grafana": ["127.0.0.1:3000:3000"]}
    assert all("edge" in SERVICES[name]["networks"] for name in ports)  # an internal network publishes nothing


def test_every_service_drops_capabilities_has_limits_and_a_read_only_root() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["pids_limit"] > 0, name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        if name != "executor":
            assert "no-new-privileges:true" in service["security_opt"], name
            assert "cap_add" not in service, name


def test_redis_keeps_what_it_acknowledged_and_never_evicts() -> None:
    command = SERVICES["redis"]["command"]
    flags = dict(zip(command[1::2], command[2::2], strict=True))
    assert flags["--appendonly"] == "yes"
    assert flags["--appendfsync"] == "always"
    assert flags["--maxmemory-policy"] == "noeviction"


def test_workers_get_longer_to_stop_than_they_take_to_drain() -> None:
    for name in ("api", "scorer", "executor"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().drain_s
    for name, spec in pod_specs():
        if name != "redis":
            assert spec["terminationGracePeriodSeconds"] > Settings().drain_s


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
        for option in service["security_opt"]:
            if option.startswith("seccomp="):
                assert (ROOT / option.removeprefix("seccomp=")).is_file()


@pytest.mark.skipif(DOCKER_COMPOSE is None, reason="needs docker-compose; run .ci/extract")
@pytest.mark.parametrize("overlay", [[], ["deploy/compose.gpu.yml"]])
def test_docker_compose_accepts_the_file(overlay: list[str]) -> None:
    files = [word for name in ("docker-compose.yml", *overlay) for word in ("-f", name)]
    chosen = ("PLAUDIT_API_KEY", "GRAFANA_PASSWORD", "REDIS_PASSWORD", "REDIS_EXECUTOR_PASSWORD", *ALERT_URLS)
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | dict.fromkeys(chosen, "chosen")
    done = subprocess.run(
        [str(DOCKER_COMPOSE), *files, "config", "--quiet"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- the users of Redis ----------------------------------------------------------------------------------------------

USERS = {line.split()[1]: line.split()[2:] for line in (DEPLOY / "redis" / "users.acl").read_text().splitlines()}


def test_every_command_of_an_executors_scripts_is_allowed() -> None:
    from service.queue.keys import script

    text = "\n".join(script(name) for name in ("lease", "finish", "hand_back", "announce"))
    called = {name.lower() for name in re.findall(r"(?:redis\.call\(|call_with\(.*, )'([A-Z]+)'", text)}
    assert called >= {"xack", "rpush", "hmget"}
    assert called
    assert sorted(called - {word.removeprefix("+") for word in USERS["executor"]}) == []


def test_pods_sign_in_as_the_user_that_compose_uses() -> None:
    urls = {
        name: entry["value"]
        for name, spec in pod_specs()
        for container in spec["containers"]
        for entry in container.get("env", [])
        if entry["name"] == "PLAUDIT_REDIS_URL"
    }
    users = {name: re.fullmatch(r"redis://(\w+):\$\(REDIS_PASSWORD\)@redis:6379/0", url) for name, url in urls.items()}
    signed_in = {name.removeprefix("plaudit-"): match and match[1] for name, match in users.items()}
    assert signed_in == {"api": "service", "scorer": "service", "executor": "executor"}


# --- the executor's seccomp profile ----------------------------------------------------------------------------------


def test_the_executors_profile_names_system_calls_that_exist() -> None:
    seccomp = pytest.importorskip("pyseccomp", reason="needs the extra `executor`", exc_type=ImportError)
    profile = json.loads((DEPLOY / "seccomp-executor.json").read_text())
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    unknown = [name for name in names if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) == -1]
    assert unknown == []
    assert len(names) == len(set(names))


def test_the_executors_profile_leaves_open_what_a_jail_is_built_with() -> None:
    profile = json.loads((DEPLOY / "seccomp-executor.json").read_text())
    refused = {name for rule in profile["syscalls"] if "args" not in rule for name in rule["names"]}
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    needed = {"clone", "unshare", "mount", "umount2", "pivot_root", "seccomp", "prctl", "setresuid"}
    assert not refused & needed


# --- watching --------------------------------------------------------------------------------------------------------


def test_prometheus_scrapes_the_ports_that_the_processes_serve() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    scraped = {}
    for job in config["scrape_configs"]:
        for static in job.get("static_configs", []):
            scraped.update(target.split(":") for target in static["targets"])
        for dns in job.get("dns_sd_configs", []):
            scraped.update({name: str(dns["port"]) for name in dns["names"]})
    served = {name: SERVICES[name]["environment"].get("PLAUDIT_METRICS_PORT") for name in ("scorer", "executor")}
    assert scraped == {"api": str(Settings().port), **served}
    for name, port in scraped.items():
        assert set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"]), name
        assert f"EXPOSE {port}" in stages()[name]
        assert f"127.0.0.1:{port}/" in stages()[name]  # the health check asks the same port


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana" / "dashboards" / "plaudit.json").read_text())


def dashboard_queries() -> list[str]:
    board = dashboard()
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    variables = board["templating"]["list"]
    queries += [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    return queries


def test_alerts_and_panels_ask_only_for_metrics_that_exist() -> None:
    samples = set().union(*metric_names().values())
    assert samples, "service/metrics.py declares nothing that this test can read"
    asked = used_metrics("\n".join([*(rule["expr"] for rule in rules()), *dashboard_queries()]))
    scaled = [manifest["spec"] for manifest in manifests() if manifest["kind"] == "ScaledObject"]
    asked |= used_metrics("\n".join(trigger["metadata"]["query"] for spec in scaled for trigger in spec["triggers"]))
    assert sorted(asked - samples) == []


def test_every_metric_has_a_panel() -> None:
    asked = used_metrics("\n".join(dashboard_queries()))
    assert [family for family, samples in metric_names().items() if not samples & asked] == []


def test_every_alert_says_how_bad_it_is_and_where_to_look() -> None:
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "look"}, rule["alert"]
        assert "for" in rule or rule["alert"] == "PlauditPoisonedJob", rule["alert"]


def test_every_alert_has_its_section_and_its_command_in_the_runbook() -> None:
    page = (ROOT / "docs" / "runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    alerts = [rule["alert"] for rule in rules()]
    assert sorted(sections) == sorted(alerts)
    assert [name for name, text in sections.items() if "```sh" not in text and "Commands as for" not in text] == []
    pages = {rule["alert"] for rule in rules() if rule["labels"]["severity"] == "page"}
    assert {name for name, text in sections.items() if text.strip().startswith("*Page.*")} == pages


@pytest.mark.skipif(AMTOOL is None, reason="needs amtool; run .ci/extract")
@pytest.mark.parametrize("urls", [{}, {"ALERT_PAGE_URL": "https://pager.example/a?b=1&c=|"}], ids=["none", "one"])
def test_alertmanager_accepts_its_configuration_as_it_is_filled_in(urls: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "alertmanager.yml"
    environ = {"PATH": TOOLS, "ALERTMANAGER_CONFIG": str(config), **urls}
    started = subprocess.run(
        ["sh", str(DEPLOY / "alertmanager" / "start.sh"), "echo"], env=environ, capture_output=True, text=True
    )
    assert started.stdout == f"--config.file={config}\n"
    receivers = {one["name"]: one for one in yaml.safe_load(config.read_text())["receivers"]}
    assert receivers.keys() == {"page", "ticket"}
    sent = [hook["url"] for one in receivers.values() for hook in one.get("webhook_configs", [])]
    assert sent == list(urls.values())
    assert ("ALERT_PAGE_URL is not set" in started.stderr) is (not urls)
    done = subprocess.run([str(AMTOOL), "check-config", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for severity, receiver in (("page", "page"), ("ticket", "ticket")):
        words = ["config", "routes", "test", f"--config.file={config}", f"severity={severity}"]
        routed = subprocess.run([str(AMTOOL), *words], capture_output=True, text=True)
        assert routed.stdout.strip() == receiver


def test_prometheus_sends_its_alerts_to_the_alertmanager_of_compose() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (target,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target == "alertmanager:9093"
    assert set(SERVICES["alertmanager"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    outside = [name for name in SERVICES["alertmanager"]["networks"] if not (COMPOSE["networks"][name] or {})]
    assert outside == ["pager"]  # the way to whoever is called
    assert not [name for name, service in SERVICES.items() if "pager" in service["networks"] and name != "alertmanager"]


def test_dashboard_panels_do_not_overlap_and_use_the_provisioned_datasource() -> None:
    board = dashboard()
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        area = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & area, panel["title"]
        cells |= area
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert board["templating"]["list"][0]["current"]["value"] == source["uid"]


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool; run .ci/extract")
def test_promtool_accepts_the_rules_and_they_fire_when_they_should(tmp_path: Path) -> None:
    board = [
        {"record": f"panel:{n}", "expr": re.sub(r"\$\w+", ".*", query)}
        for n, query in enumerate(dashboard_queries())
        if not query.startswith("label_values")
    ]
    panels = tmp_path / "panels.yml"
    panels.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": board}]}))
    folder = DEPLOY / "prometheus"
    for words in ("check config prometheus.yml", "test rules rules.test.yml", f"check rules {panels}"):
        done = subprocess.run([str(PROMTOOL), *words.split()], cwd=folder, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr


# --- Kubernetes ------------------------------------------------------------------------------------------------------


def test_kustomization_lists_every_manifest_or_names_it_as_optional() -> None:
    text = (DEPLOY / "kubernetes" / "kustomization.yaml").read_text()
    listed = set(re.findall(r"^\s+(?:# )?- (\w+\.yaml)$", text, re.MULTILINE))
    assert listed == {path.name for path in KUBERNETES} - {"kustomization.yaml"}


def test_kubernetes_injects_no_variables_and_no_tokens() -> None:
    # a Service called plaudit-api would put PLAUDIT_API_PORT into every pod, and an unknown setting is an error
    for name, spec in pod_specs():
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name


def test_only_the_executor_pod_is_privileged_and_it_has_nodes_of_its_own() -> None:
    specs = dict(pod_specs())
    privileged = [
        name
        for name, spec in specs.items()
        if any(c.get("securityContext", {}).get("privileged") for c in spec["containers"])
    ]
    assert privileged == ["plaudit-executor"]
    assert specs["plaudit-executor"]["nodeSelector"]
    assert specs["plaudit-executor"]["tolerations"]


def test_pods_use_the_settings_and_ports_of_the_images() -> None:
    for name, spec in pod_specs():
        for container in spec["containers"]:
            ports = {port.get("name"): port["containerPort"] for port in container["ports"]}
            environ = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
            if "metrics" in ports:
                assert environ["PLAUDIT_METRICS_PORT"] == str(ports["metrics"]), name


# --- the page at GET / -----------------------------------------------------------------------------------------------

DASHBOARD = ROOT / "service" / "api" / "routes" / "dashboard"
OWN_FILES = sorted(path for path in DASHBOARD.iterdir() if path.is_file())


def test_the_page_is_small_and_fetches_nothing_from_elsewhere() -> None:
    assert sum(len(path.read_bytes()) for path in OWN_FILES) < 80_000
    assert sum(len(path.read_bytes()) for path in DASHBOARD.rglob("*") if path.is_file()) < 280_000
    for path in OWN_FILES:
        text = path.read_text()
        outside = set(re.findall(r"https?://[^\s\"'<>)]+", text)) - {"http://www.w3.org/2000/svg"}  # names, no fetch
        assert outside == set(), path.name
        assert not re.search(r"@import|url\(", text), path.name
        links = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"([^\"]+)", text)
        assert [link for link in links if not (DASHBOARD / link.removeprefix("dashboard/")).is_file()] == []


def test_the_page_never_parses_an_answer_as_html() -> None:
    for path in OWN_FILES:
        text = path.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerously|\beval\b|new Function", text
        ), path.name


def test_the_licences_of_what_the_page_uses_of_others_travel_with_it() -> None:
    told = (DASHBOARD / "vendor" / "LICENSES.txt").read_text()
    for path in (DASHBOARD / "vendor").iterdir():
        assert path.name == "LICENSES.txt" or f"{path.name} " in told, path.name
    assert "uPlot 1.6.32" in told
    assert "v1.6.32" in (DASHBOARD / "vendor" / "uplot.js").read_text()[:100]


def test_the_page_explains_every_reason_why_work_is_slow() -> None:
    from service.slowness import PARTS

    table = re.search(r"const WHY = \{(.+?)\n\};", (DASHBOARD / "operators.js").read_text(), re.DOTALL)
    assert table
    assert tuple(re.findall(r"^  (\w+): \[", table[1], re.MULTILINE)) == PARTS
