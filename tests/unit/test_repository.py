"""The files around the code: workflows that name what exists, one version, one licence."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_the_makefile_has(path: Path) -> None:
    workflow = load(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            named = set(re.findall(r"(?:^|&& )make ([a-z-]+)", step.get("run", ""), re.MULTILINE))
            assert named <= targets, named - targets
            for folder in re.findall(r"pytest [^\n]*?(tests/\S+)", step.get("run", "")):
                assert (ROOT / folder).exists()


def test_issue_forms_have_what_their_readers_need() -> None:
    assert len(FORMS) == 3
    for path in FORMS:
        form = load(path)
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= form.keys()
            assert all(field["attributes"]["label"] for field in form["body"])


def test_one_version_and_one_licence() -> None:
    server = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    citation = load(ROOT / "CITATION.cff")
    for distribution, root in ((".", None), ("client", "..")):
        tree = tomllib.loads((ROOT / distribution / "pyproject.toml").read_text("utf-8"))
        assert tree["project"]["dynamic"] == ["version"]
        options = tree["tool"]["hatch"]["version"]["raw-options"]
        assert (options["fallback_version"], options.get("root")) == (citation["version"], root)
    (needed,) = (one for one in server["dependencies"] if re.match(r"plaudit\b", one))
    major, minor = map(int, citation["version"].split(".")[:2])
    assert needed == f"plaudit>={major}.{minor}.dev0,<{major}.{minor + 1}"
    assert server["license"] == client["license"] == citation["license"]


def test_what_contributors_look_for_is_there() -> None:
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", ".pre-commit-config.yaml"):
        assert (ROOT / name).stat().st_size > 200, name
    for hook in load(ROOT / ".pre-commit-config.yaml")["repos"][0]["hooks"]:
        assert hook["entry"].split()[0].startswith(".venv/bin/")
