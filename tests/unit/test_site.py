"""The documentation as a site: it builds in strict mode, which checks its links, and loads nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs mkdocs; pip install 'plaudit-server[docs]'")
ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r'<(?:script|img|iframe)[^>]* src="([^"]+)"'
    r'|<link[^>]* rel="?(?:stylesheet|icon|preload|modulepreload)[^>]* href="([^"]+)"'
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"}
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.extended
def test_every_page_of_the_repository_is_a_page_of_the_site(site: Path) -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        page = source.relative_to(ROOT / "docs").with_suffix("")
        built = site / (page.parent if page.name == "index" else page) / "index.html"
        assert built.is_file() is (page.name != "log"), page
    for page in ("index.html", "changes/index.html", "contributing/index.html", "results/forgery/index.html"):
        assert (site / page).is_file(), page


@pytest.mark.extended
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        loaded = ["".join(pair) for pair in LOADED.findall(page.read_text("utf-8"))]
        assert loaded, page
        assert [target for target in loaded if re.match(r"https?:|//", target)] == [], page


@pytest.mark.extended
def test_the_reference_is_made_from_the_code(site: Path) -> None:
    http = (site / "reference" / "http" / "index.html").read_text("utf-8")
    assert all(
        f'id="{anchor}"' in http for anchor in ("post-rank", "post-get_reward", "rewardrequest", "problemdocument")
    )
    client = (site / "reference" / "client" / "index.html").read_text("utf-8")
    assert all(
        f'id="plaudit.{name}"' in client for name in ("best_of_n", "Client.rank", "AsyncClient", "errors.Overloaded")
    )
    assert "PLAUDIT_MAX_ITEMS" in (site / "reference" / "settings" / "index.html").read_text("utf-8")


@pytest.mark.extended
def test_the_search_finds_what_readers_look_for(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))["docs"]
    for word, page in {"sandbox_fusion": "trainers/verl-sandbox/", "PLAUDIT_MAX_ITEMS": "operations/"}.items():
        assert any(word in entry["text"] and entry["location"].startswith(page) for entry in index), word
