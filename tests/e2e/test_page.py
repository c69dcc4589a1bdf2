"""The page at `/` in a real browser: it ranks, shares, explains, and is usable by everybody."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.capabilities import HostCapabilities
from service.scoring.reward_model import Calibration
from support.broker import Broker
from support.browser import CHROMIUM, SCHEMES, SIZES, VIEWS, browser, open_page, violations
from support.checkpoints import checkpoint
from support.stack import Stack, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.extended,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("playwright", "axe_playwright_python")),
        reason="needs the extra `browser`",
    ),
]
KEYS = {"api_key": "one,two", "admin_key": "boss"}


@pytest.fixture(scope="module")
def open_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    walls = HostCapabilities.probe()
    if walls.level not in ("strong", "userns"):
        pytest.skip(f"programs cannot run here; missing: {'; '.join(walls.missing)}")
    model = checkpoint(tmp_path_factory.mktemp("tiny"), calibration=Calibration(a=2.0, b=-1.0))
    with Broker() as broker, Stack(broker, model) as stack:
        yield stack


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(chromium: Browser, open_stack: Stack) -> Iterator[Page]:
    opened, errors = open_page(chromium, open_stack.url)
    yield opened
    opened.context.close()
    assert not errors


def run(page: Page) -> list[str]:
    """Press the button; the programs in the order of their rank."""
    page.get_by_role("button", name="Run and rank").click()
    page.wait_for_selector(".ranking", timeout=90_000)
    return page.locator(".ranking .cards > li > .label").all_inner_texts()


def test_the_example_is_ranked_with_its_verdicts_tests_and_flags(page: Page) -> None:
    first, second, third = run(page)
    assert "program 2" in first
    assert "3 of 3 tests" in first
    assert "program 1" in second
    assert "2 of 3 tests" in second
    assert "0 of 3 tests" in third
    cards = page.locator(".ranking .cards > li")
    assert "the assertion failed" in cards.nth(1).inner_text()
    assert "operators overridden" in cards.nth(2).inner_text()


def test_a_link_carries_the_whole_playground_and_sends_no_server_its_contents(
    page: Page, chromium: Browser, open_stack: Stack
) -> None:
    page.get_by_label("Prompt", exact=True).fill('Say hello, with ümlauts and "quotes".')
    page.get_by_label("Kind").select_option("none")
    page.get_by_role("button", name="Copy a link").click()
    link = page.get_by_label("Link").input_value()
    assert link.startswith(f"{open_stack.url}/#play=")
    other, _ = open_page(chromium, link)
    wait_for(lambda: "ümlauts" in other.get_by_label("Prompt", exact=True).input_value(), what="the link's prompt")
    assert other.get_by_label("Kind").input_value() == "none"
    other.context.close()


def test_expected_and_got_stand_beside_each_other(page: Page) -> None:
    page.get_by_label("Example").select_option(label="C++, standard input and output")
    ranked = run(page)
    assert "program 2" in ranked[0]
    wrong = page.locator(".ranking .cards > li").nth(1).locator("tbody").last.locator("tr").nth(1).inner_text()
    assert "4000000000" in wrong
    assert "-294967296" in wrong


def test_what_cannot_be_read_is_said_before_anything_is_sent(page: Page) -> None:
    page.get_by_label("Example").select_option(label="Python, function calls")
    page.get_by_label("Tests", exact=True).last.fill("1, 2 = 3")
    assert "call 1 has no ->" in page.get_by_role("alert").inner_text()


def test_the_python_snippet_does_what_the_page_did(page: Page, open_stack: Stack) -> None:
    page.get_by_text("The same as curl, as Python").click()
    snippet = page.locator(".snippets .code").nth(1).inner_text()
    printed: list[Any] = []
    exec(compile(snippet, "snippet", "exec"), {"print": printed.append})
    assert printed == [[1, 0, 2]]


def test_a_request_is_found_with_its_way_and_its_slow_work(page: Page, open_stack: Stack) -> None:
    program = "import time\n\ndef wait():\n    time.sleep(0.9)\n    return 1\n"
    tests = {"kind": "assert", "asserts": ["assert wait() == 1"]}
    with open_stack.client() as client:
        answer = client.post(
            "/execute", json={"items": [{"id": "sleeper", "language": "python", "programs": [program], "tests": tests}]}
        )
    request_id = answer.headers["x-request-id"]
    page.get_by_role("link", name="Requests").click()
    page.get_by_label("X-Request-Id").fill(request_id)

    def found() -> bool:
        page.get_by_role("button", name="Find").click()
        page.wait_for_timeout(300)
        return page.locator(".found").count() == 1

    wait_for(found, what="the request on the page")
    assert "until first result" in page.locator(".found").inner_text()
    page.get_by_role("link", name="Slow work").click()
    sample = page.locator(".slow", has_text="sleeper").first
    sample.wait_for()
    assert "the program slept" in sample.inner_text()
    sample.get_by_role("link").click()
    page.locator(".found").wait_for()
    assert request_id in page.locator(".found").inner_text()
    assert program[:20] not in page.content()


def test_charts_survive_a_reload(page: Page) -> None:
    run(page)
    page.get_by_role("link", name="Activity").click()
    page.locator(".chart canvas").first.wait_for(timeout=30_000)
    page.reload()
    page.locator(".chart canvas").first.wait_for(timeout=30_000)
    assert page.locator(".chart").count() >= 5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_no_violation_and_nothing_is_cut_off(
    chromium: Browser, open_stack: Stack, size: str, scheme: str
) -> None:
    opened, errors = open_page(chromium, open_stack.url, size, scheme)
    run(opened)
    found = {"ranking": violations(opened)}
    for view in VIEWS:
        opened.goto(f"{open_stack.url}/#{view}")
        opened.wait_for_selector(f"nav a[href='#{view}'][aria-current=page]")
        opened.wait_for_timeout(700)
        found[view] = violations(opened)
        assert opened.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"], view
    opened.context.close()
    assert found == {view: [] for view in found}
    assert not errors


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Run and rank":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".ranking", timeout=90_000)


def test_with_keys_the_page_shows_each_tenant_its_own(chromium: Browser, tmp_path: Path) -> None:
    model = checkpoint(tmp_path / "tiny")
    with Broker() as broker, Stack(broker, model, **KEYS) as stack:
        for key in ("one", "two"):
            body = {"items": [{"id": f"of-{key}", "prompt": "Say.", "completions": [key]}]}
            with stack.client(headers={"Authorization": f"Bearer {key}", "X-Request-Id": f"from-{key}"}) as client:
                assert client.post("/score", json=body).is_success
        opened, errors = open_page(chromium, f"{stack.url}/#playground")
        opened.goto(f"{stack.url}/#requests")
        assert "this service wants an API key" in opened.get_by_role("alert").first.inner_text()
        assert "from-" not in opened.content()
        shown = {}
        for key in ("one", "two", "boss"):
            opened.get_by_label("API key").fill(key)
            opened.get_by_role("button", name="Use").click()
            opened.wait_for_timeout(2500)
            text = json.dumps(opened.content())
            shown[key] = [name for name in ("one", "two") if f"from-{name}" in text]
        opened.context.close()
        assert shown == {"one": ["one"], "two": ["two"], "boss": ["one", "two"]}
        assert not errors
