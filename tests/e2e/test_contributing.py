"""The worked examples of docs/contributing do what they say, in a copy of the repository.

`python file PATH` blocks become files, `diff PATH` blocks are applied, `sh contributor` blocks run in the copy, and
`bash contributor` blocks run against the copy's service and must print the `text answer` that follows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pages import ROOT, Block, blocks
from support.stack import Process

PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
WRITTEN = "http://127.0.0.1:8000"  # where the pages say that the service is
pytestmark = [
    pytest.mark.timeout(600),
    *(pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}") for tool in ("curl", "mawk")),
]


def of(info: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.info.startswith(info)]


def apply(block: Block, copy: Path) -> None:
    """Write a `file` block; of a `diff` block, replace the old lines, which must be in the file exactly once."""
    kind, path = block.info.split()[-2:]
    file = copy / path
    if kind == "file":
        assert not file.exists(), f"{block.name}: {path} is there already"
        file.write_text(block.code, "utf-8")
        return
    lines = block.code.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    text = file.read_text("utf-8")
    assert text.count(old) == 1, f"{block.name}: the old lines are {text.count(old)} times in {path}"
    file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's code with every example applied."""
    folder = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")
    for name in ("service", "sandbox", "training", "client"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for page in PAGES:
        for block in blocks(page):
            if block.info.startswith(("python file ", "diff ")):
                apply(block, folder)
    return folder


@pytest.fixture(scope="module")
def environ(copy: Path) -> dict[str, str]:
    """The environment of commands in the copy: its code comes first, and so do the tools beside this interpreter."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PLAUDIT_")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return inherited | {"PATH": tools, "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'client'}"}


@pytest.fixture(scope="module")
def url(copy: Path, environ: dict[str, str]) -> Iterator[str]:
    """The copy's own service, ready."""
    flags = ["--port", "0", "--scorers", "0", "--executors", "1", "--isolation-accept", "userns"]
    process = Process(["up", *flags], copy / "log", environ)
    try:
        yield process.line()["url"]
    finally:
        process.close()


def run(block: Block, code: str, copy: Path, environ: dict[str, str]) -> str:
    argv = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(argv, cwd=copy, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{block.name}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in of("sh contributor")])
def test_commands_of_a_page_succeed_in_the_copy(block: Block, copy: Path, environ: dict[str, str]) -> None:
    run(block, block.code, copy, environ)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_requests_of_a_page_get_the_answers_that_it_shows(
    page: Path, copy: Path, environ: dict[str, str], url: str
) -> None:
    page_blocks = list(blocks(page))
    requests = [at for at, block in enumerate(page_blocks) if block.info == "bash contributor"]
    assert requests
    for at in requests:
        answer = page_blocks[at + 1]
        assert answer.info == "text answer"
        printed = run(page_blocks[at], page_blocks[at].code.replace(WRITTEN, url), copy, environ)
        assert printed.strip() == answer.code.strip()
