"""Prometheus and Alertmanager with the files of deploy/, on a running service: an alert reaches whoever is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from sandbox.capabilities import HostCapabilities
from support.broker import Broker
from support.checkpoints import checkpoint
from support.stack import Stack, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = f"{ROOT / '.make' / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
PROMETHEUS, ALERTMANAGER = (shutil.which(name, path=TOOLS) for name in ("prometheus", "prometheus-alertmanager"))

pytestmark = [
    pytest.mark.extended,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not (PROMETHEUS and ALERTMANAGER), reason="needs prometheus and its alertmanager; .ci/extract"),
]


@pytest.fixture
def pager() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/page", posted
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def watched(tmp_path: Path, pager: tuple[str, list[dict[str, Any]]]) -> Iterator[tuple[Stack, str]]:
    """A service without a scorer, and the address of the Prometheus that watches it and calls the pager."""
    if HostCapabilities.probe().level not in ("strong", "userns"):
        pytest.skip("programs cannot run here")
    started: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], **environ: str) -> None:
        log = (tmp_path / f"{len(started)}.log").open("wb")
        started.append(subprocess.Popen(argv, env={**os.environ, **environ}, stdout=log, stderr=log))
        log.close()

    alert_port, prometheus_port = free_port(), free_port()
    with Broker() as broker, Stack(broker, checkpoint(tmp_path / "tiny"), scorers=0) as stack:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alert_port}"]
        config["scrape_configs"] = config["scrape_configs"][:1]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{stack.port}"]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        shutil.copy(DEPLOY / "prometheus" / "rules.yml", tmp_path)
        try:
            start(
                [
                    "sh",
                    str(DEPLOY / "alertmanager" / "start.sh"),
                    str(ALERTMANAGER),
                    "--cluster.listen-address=",
                    f"--web.listen-address=127.0.0.1:{alert_port}",
                    f"--storage.path={tmp_path / 'alerts'}",
                ],
                ALERT_PAGE_URL=pager[0],
                ALERTMANAGER_CONFIG=str(tmp_path / "alertmanager.yml"),
            )
            start(
                [
                    str(PROMETHEUS),
                    f"--config.file={tmp_path / 'prometheus.yml'}",
                    "--enable-feature=exemplar-storage",
                    f"--web.listen-address=127.0.0.1:{prometheus_port}",
                    f"--storage.tsdb.path={tmp_path / 'series'}",
                ]
            )
            yield stack, f"http://127.0.0.1:{prometheus_port}"
        finally:
            for process in started:
                process.terminate()
                process.wait(30)


def test_a_missing_scorer_calls_the_pager_and_every_panel_has_an_answer(
    watched: tuple[Stack, str], pager: tuple[str, list[dict[str, Any]]]
) -> None:
    stack, prometheus = watched
    item = {"language": "python", "programs": ["print(1)"], "tests": {"kind": "stdio", "cases": [{"stdout": "1"}]}}
    with stack.client() as client:
        wait_for(lambda: client.get("/ready").json()["executors"] == 1, 60, "the executor")
        assert client.post("/execute", json={"items": [item]}).is_success

    def paged() -> set[str]:
        return {alert["labels"]["alertname"] for call in pager[1] for alert in call["alerts"]}

    wait_for(lambda: "PlauditNoScorer" in paged(), 240, "the page")
    assert "PlauditNoExecutor" not in paged()
    (call,) = [call for call in pager[1] if call["alerts"][0]["labels"]["alertname"] == "PlauditNoScorer"][:1]
    assert call["commonAnnotations"]["summary"] == "No scorer is alive; /score answers 503"
    with httpx.Client(base_url=prometheus, trust_env=False) as http:
        board = json.loads((DEPLOY / "grafana" / "dashboards" / "plaudit.json").read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$language", ".*").replace("$model", ".*")
                answer = http.get("/api/v1/query", params={"query": query}).json()
                assert answer["status"] == "success", (panel["title"], answer)
        alive = http.get("/api/v1/query", params={"query": 'plaudit_workers{kind="execute"}'}).json()["data"]["result"]
        assert alive[0]["value"][1] == "1"
        exemplars = http.get(
            "/api/v1/query_exemplars",
            params={"query": "plaudit_http_request_seconds_bucket", "start": "0", "end": "4000000000"},
        ).json()["data"]
        labels = [one["labels"] for series in exemplars for one in series["exemplars"]]
        assert any("request_id" in one for one in labels)
