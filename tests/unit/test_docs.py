"""What the pages say is true: code blocks run, examples fit the schemas, tables come from the code.

Tables between `<!-- generated: NAME -->` and `<!-- end -->` are made here and written again by
`PYTHONPATH=client:tests python tests/unit/test_docs.py`. Fences by their info string:
  python          run, one namespace a page                  json NAME       a valid plaudit.schemas.NAME
  bash service    }  run by the integration tests            sh              for the reader's host; syntax checked
  python service  }  against a real service                  text, mermaid   read by people
  python ray      run by an extended test on a Ray cluster
  python trainer, bash trainer, text answer, yaml NAME       pages of trainers, run by the conformance tests
  python file PATH, diff PATH, sh contributor, bash contributor    docs/contributing, run by tests/e2e
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from plaudit import errors, schemas
from plaudit.grading import SEVERITY, Verdict
from service import metrics
from service.settings import PREFIX, Settings
from support.pages import PAGES, ROOT, Block, blocks

KINDS = {
    "python",
    "python checker",
    "python service",
    "python ray",
    "bash service",
    "sh",
    "text",
    "mermaid",
    "python trainer",
    "bash trainer",
    "text answer",
    "sh contributor",
    "bash contributor",
}


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(*kinds: str) -> list[Any]:
    return [
        pytest.param(block, id=block.name) for block in BLOCKS if block.info in kinds or block.info.split()[0] in kinds
    ]


# --- blocks ----------------------------------------------------------------------------------------------------------


def test_every_block_says_what_it_is() -> None:
    unknown = [
        f"{block.name}: {block.info}"
        for block in BLOCKS
        if block.info not in KINDS and not block.info.startswith(("json ", "yaml ", "diff ", "python file "))
    ]
    assert unknown == []


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_python_blocks_run(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": page.name}
    for block in blocks(page):
        if block.info == "python":
            exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)


@pytest.mark.parametrize("block", of("python service", "python checker", "python ray"))
def test_python_blocks_for_a_service_compile(block: Block) -> None:
    compile(block.code, block.name, "exec")


@pytest.mark.parametrize("block", of("sh", "bash"))
def test_shell_blocks_are_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.code, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", [param for param in of("json") if param.values[0].info != "json"])
def test_examples_fit_their_schema(block: Block) -> None:
    kind = getattr(schemas, block.info.split()[1])
    given = json.loads(block.code)
    model = kind.model_validate(given)
    assert stray(given, model) == []


def stray(given: Any, model: Any, path: str = "") -> list[str]:
    """Fields of an example that its type does not have (answers ignore what they do not know, people would not)."""
    if isinstance(model, BaseModel) and isinstance(given, dict):
        known = type(model).model_fields
        own = [f"{path}.{name}" for name in given if name not in known]
        return own + [
            s for name in given if name in known for s in stray(given[name], getattr(model, name), f"{path}.{name}")
        ]
    if isinstance(model, list) and isinstance(given, list):
        return [s for at, (a, b) in enumerate(zip(given, model, strict=True)) for s in stray(a, b, f"{path}.{at}")]
    return []


# --- generated tables ------------------------------------------------------------------------------------------------


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def endpoints() -> str:
    from service.api.app import create_app
    from service.api.compat.registry import DIALECTS

    document = create_app(Settings(redis_url="unix:///nowhere")).openapi()
    rows = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] not in DIALECTS:
                name = path.replace("job_id", "id").replace("request_id", "id")
                rows.append([f"`{method.upper()} {name}`", operation["summary"]])
    rows.append(["`GET /`, `/docs`, `/openapi.json`", "The dashboard, the interactive reference, the schema"])
    return table(["endpoint", "what it does"], rows)


def error_codes() -> str:
    unsent = (errors.HostLacks, errors.UsageError, errors.Unreachable, errors.ClientClosed)  # no answers
    tree = errors.kinds_below(errors.PlauditError)
    kinds = [kind for kind in tree if kind.__module__ == errors.__name__ and kind not in unsent]
    kinds.sort(key=lambda kind: (kind.status, kind.code))
    rows = [[str(kind.status), f"`{kind.code}`", kind.title, "yes" if kind.retryable else "no"] for kind in kinds]
    return table(["status", "code", "title", "retryable"], rows)


VERDICTS = {
    Verdict.PASSED: "every test passed",
    Verdict.WRONG_ANSWER: "ran, and answered wrongly",
    Verdict.RUNTIME_ERROR: "raised, or exited with an error",
    Verdict.COMPILE_ERROR: "does not compile, or is not Python",
    Verdict.TIME_LIMIT: "used up its CPU time, or the wall-clock safety net",
    Verdict.MEMORY_LIMIT: "used up its memory",
    Verdict.OUTPUT_LIMIT: "wrote too much",
    Verdict.NO_RESULT: "ended before it gave a result",
    Verdict.INVALID_RESULT: "answered what the test cannot take, or past a bound",
    Verdict.SECURITY_VIOLATION: "did what no honest program does",
    Verdict.NO_CODE: "the completion holds no code block",
    Verdict.SKIPPED: "not run: by the stop rule, or because the suite skips it",
    Verdict.UNJUDGEABLE: "of a test only: it asks what values cannot answer, and is not counted",
}


def verdicts() -> str:
    return table(
        ["verdict", "the program"], [[f"`{verdict.value}`", VERDICTS[verdict]] for verdict in reversed(SEVERITY)]
    )


def settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        shown = (
            "" if default in (None, [], {}) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        rows.append([f"`{PREFIX}{name.upper()}`", shown, (field.description or "").replace("\n", " ")])
    return table(["variable", "default", "what"], rows)


def families() -> str:
    rows = []
    for metric in vars(metrics).values():
        if hasattr(metric, "_documentation"):
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            suffix = "_total" if metric._type == "counter" else ""
            rows.append([f"`{metric._name}{suffix}`", metric._type, labels, metric._documentation])
    rows += [
        [f"`{name}`", "gauge", f"`{label}`" if label else "", text]
        for name, text, label, _ in (
            *metrics.queue_gauges({}, {}, {}, {}, {}).gauges,
            *metrics.memory_gauges(0, 0, {}, {}).gauges,
            *metrics.shard_gauges({"": True}).gauges,
        )
    ]
    return table(["metric", "type", "labels", "what"], rows)


def dialects() -> str:
    from service.api.compat.registry import DIALECTS

    rows = []
    for name, one in DIALECTS.items():
        paths = sorted({route.path for route in one.router.routes})
        retry_status = "none; waits inside" if one.retry_status is None else str(one.retry_status)
        rows.append(
            [f"`{name}`", one.clients, " ".join(f"`{path}`" for path in paths), f"{one.deadline_s:g} s", retry_status]
        )
    return table(["dialect", "clients", "endpoints", "deadline", "retry status"], rows)


def languages() -> str:
    from plaudit.languages import ALIASES
    from sandbox.language_specs import LANGUAGE_SPECS, VARIANTS

    rows = []
    for one in LANGUAGE_SPECS:
        names = ", ".join(f"`{alias}`" for alias in ALIASES[one.name])
        packages = ", ".join(f"`{package}`" for package in (*one.packages, *one.libraries))
        variants = ", ".join(f"`{name}`" for name, variant in VARIANTS.items() if variant.name == one.name)
        compiled, managed = ("yes" if flag else "" for flag in (one.compile, one.managed))
        rows.append([f"`{one.name}`", names, variants, compiled, managed, packages.replace("|", "` or `")])
    heads = ["language", "also called", "variants", "compiled", "managed", "Debian packages, those for tests included"]
    return table(heads, rows)


def grading() -> str:
    from support.grading import grading_rows

    return table(["what a test does", "a right program is", "`judge` of the report"], grading_rows())


def kinds() -> str:
    from support.kinds import KINDS

    rows = [[kind.name, kind.known, kind.spec or "", kind.own] for kind in KINDS]
    return table(["checkpoint", "known from", "`reward_model.json`", "compared with"], rows)


def commands() -> str:
    """Every command with its flags; not argparse's own text, whose form is another in every version of Python."""
    from plaudit import cli
    from service.cli import add_commands

    return "\n\n".join(_command("plaudit", cli.parser({}, add_commands)))


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from _command(f"{name} {word}", child)
        elif action.dest != "help" and name != "plaudit":
            value = action.metavar or ("" if action.nargs == 0 else "|".join(map(str, action.choices or ["VALUE"])))
            shown = " ".join([*action.option_strings[-1:], value] if action.option_strings else [str(action.metavar)])
            rows.append([f"`{shown.strip()}`", (action.help or "") % {"default": action.default}])
    if rows:
        yield f"## {name}"
        yield str(parser.description)
        yield table(["argument", "what"], rows)


GENERATED: dict[str, Callable[[], str]] = {
    "dialects": dialects,
    "languages": languages,
    "grading": grading,
    "kinds": kinds,
    "endpoints": endpoints,
    "errors": error_codes,
    "commands": commands,
    "verdicts": verdicts,
    "settings": settings,
    "metrics": families,
}
MARK = re.compile(r"(<!-- generated: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def regenerated(text: str) -> str:
    return MARK.sub(lambda found: f"{found[1]}{GENERATED[found[2]]()}\n{found[4]}", text)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_generated_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text("utf-8")
    assert regenerated(text) == text, "run: PYTHONPATH=client:tests python tests/unit/test_docs.py"


def test_every_generated_table_is_on_some_page() -> None:
    used = {found[2] for page in PAGES for found in MARK.finditer(page.read_text("utf-8"))}
    assert used == set(GENERATED)


# --- prose -----------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            dead.append(target)
    assert dead == []


def test_files_that_the_pages_name_exist() -> None:
    named = re.compile(
        r"`((?:service|sandbox|training|client|deploy|docs|models|benchmarks|examples)/[\w./-]+|docker-compose\.yml)`"
    )
    missing = [
        f"{page.name}: {name}"
        for page in PAGES
        for name in named.findall(page.read_text("utf-8"))
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_settings_and_variables_that_the_pages_name_exist() -> None:
    # PLAUDIT_API_PORT is named as what Kubernetes would inject
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {"PLAUDIT_API_PORT"}
    named = {name for page in PAGES for name in re.findall(r"\bPLAUDIT_[A-Z_]+\b", page.read_text("utf-8"))}
    assert sorted(named - known - {"PLAUDIT_"}) == []


def test_codes_and_statuses_that_the_pages_branch_on_exist() -> None:
    source = "\n".join(
        path.read_text("utf-8") for room in ("service", "client") for path in (ROOT / room).rglob("*.py")
    )
    named = {code for page in PAGES for code in re.findall(r"code `(\w+)`", page.read_text("utf-8"))}
    assert [code for code in sorted(named) if f'"{code}"' not in source] == []


def test_the_picture_of_the_front_page_is_drawn_from_the_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import pictures

    text = pictures.RESULTS.read_text("utf-8")
    assert pictures.PICTURE.read_text("utf-8") == pictures.draw(text), "run: python benchmarks/pictures.py"
    programs, paid = pictures.false_passes(text)
    front = (ROOT / "README.md").read_text("utf-8")
    assert all(f"{name} {count:,}" in front for name, count in paid.items())
    assert f"of {programs:,} wrong" in front


def test_no_page_names_a_path_of_somebodys_machine() -> None:
    personal = re.compile(r"(?<![\w.])/(?:home|root|work|Users)/")
    assert [page.name for page in PAGES if personal.search(page.read_text("utf-8"))] == []


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(regenerated(path.read_text("utf-8")), "utf-8")
