"""A Chromium without a window, and what a page shows wrong. Debian: `apt-get install chromium`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
VIEWS = ("playground", "activity", "requests", "slow", "deployment")
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium; it runs without its own sandbox, which root cannot have, so only for pages of this repository."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def open_page(opened: Browser, url: str, size: str = "desktop", scheme: Any = "light") -> tuple[Page, list[str]]:
    """A page, and the list in which its errors will be found: of scripts, and what the policy blocked."""
    context = opened.new_context(viewport=SIZES[size], color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    page.goto(url)
    page.wait_for_selector(".playground")
    page.wait_for_selector(".pill.good", timeout=90_000)
    return page, errors


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with what is shown now."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]
