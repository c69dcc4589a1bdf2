"""What MkDocs does not do by itself: pages from outside `docs/`, and the reference of the HTTP API.

- `README.md` is the first page. `benchmarks/results`, the report of the shipped model, `CONTRIBUTING.md`,
  `CHANGELOG.md` and `SECURITY.md` are pages, too. No file is copied or moved.
- Links of all pages are written for the repository. Here each becomes a link to the page of the site, and any other
  file that a page names (a picture, a script, a manifest) travels with the site under `files/`.
- `reference/http.md` is made from the OpenAPI document of the service.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from posixpath import relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing/index.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "results/index.md",
    "examples/README.md": "tutorial/examples.md",
    "models/plaudit-mini/report.md": "results/plaudit-mini.md",
}
TABLES = {  # on pages of their own, beside the page on which they stand in the repository
    "settings": ("operations.md", "Settings", "Flags win over variables, variables over defaults."),
    "metrics": ("operations.md", "Metrics", "What `/metrics` has; [operations](../operations.md#metrics) says where."),
    "errors": ("api.md", "Errors", "What a problem document's `code` can be ([more](../api.md#errors))."),
}
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
ELSEWHERE = ("http://", "https://", "mailto:", "#")

_sources: dict[Path, File] = {}  # by the file in the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, the reference, and every file that a page links to."""
    _sources.clear()
    results = {f"benchmarks/results/{path.name}": f"results/{path.name}" for path in _results()}
    for source, uri in (OUTSIDE | results).items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "reference/http.md", content=http_reference(_document())))
    for name, (page, title, text) in TABLES.items():
        content = f"# {title}\n\n{text}\n\n{_table_of(ROOT / 'docs' / page, name)}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    for file in files:
        if file.abs_src_path is not None:
            _sources[Path(file.abs_src_path).resolve()] = file
    for source in [path for path, file in _sources.items() if file.is_documentation_page()]:
        for target in _targets(source.read_text("utf-8")):
            path = (source.parent / target.partition("#")[0]).resolve()
            if path not in _sources and path.is_file() and path.is_relative_to(ROOT):
                uri = f"files/{path.relative_to(ROOT)}"
                _sources[path] = File.generated(config, uri, content=path.read_bytes())
                files.append(_sources[path])
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository become links inside the site. Raises PluginError for one that leads nowhere."""
    if page.file.abs_src_path is None:
        return markdown
    source = Path(page.file.abs_src_path).resolve()

    def linked(found: re.Match[str]) -> str:
        target, _, anchor = found[2].partition("#")
        if found[2].startswith(ELSEWHERE):
            return found[0]
        file = _sources.get((source.parent / target).resolve())
        if file is None:
            raise PluginError(f"{source.relative_to(ROOT)}: the link to {found[2]} leads to no file of the repository")
        uri = relpath(file.src_uri, os.path.dirname(page.file.src_uri) or ".")
        return f"{found[1]}{uri}{'#' + anchor if anchor else ''}{found[3]}"

    return _outside_fences(markdown, lambda text: LINK.sub(linked, text))


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        # Info strings have a second word for the tests, which MkDocs does not know.
        parts += [change(markdown[at : fence.start()]), re.sub(r"^(```\w+) [^\n]*", r"\1", fence[0])]
        at = fence.end()
    return "".join([*parts, change(markdown[at:])])


def _targets(markdown: str) -> Iterator[str]:
    for found in LINK.finditer(FENCE.sub("", markdown)):
        if not found[2].startswith(ELSEWHERE):
            yield found[2]


def _table_of(page: Path, name: str) -> str:
    """The generated table of that name. Raises PluginError if the page has none."""
    found = re.search(rf"<!-- generated: {name} -->\n(.*?)<!-- end -->", page.read_text("utf-8"), re.DOTALL)
    if found is None:
        raise PluginError(f"{page.name} has no generated table {name}")
    return found[1]


def _results() -> list[Path]:
    return sorted((ROOT / "benchmarks" / "results").glob("*.md"))


# --- the reference of the HTTP API -----------------------------------------------------------------------------------


def _document() -> dict[str, Any]:
    from service.api.app import create_app
    from service.settings import Settings

    return create_app(Settings(redis_url="unix:///nowhere")).openapi()


def http_reference(document: dict[str, Any]) -> str:
    """The OpenAPI document as a page: a section for each operation, by tag, and a table for each schema."""
    tags: dict[str, list[str]] = {tag["name"]: [f"## {tag['description']}"] for tag in document["tags"]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tags[operation["tags"][0]] += _operation(path, method, operation)
    parts = [
        "# HTTP API, endpoint by endpoint",
        "From the document that a running service has at `/openapi.json`; at `/docs` it can be tried there. "
        "[The HTTP API](../api.md) says what a schema cannot.",
        *(line for lines in tags.values() for line in lines),
        "## Schemas",
    ]
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += [f"### {name}", *_schema(schema)]
    return "\n\n".join(parts) + "\n"


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method.upper()} {path}"
    yield operation.get("summary", "")
    if description := operation.get("description"):
        yield description
    if parameters := operation.get("parameters"):
        rows = [(f"`{one['name']}`", one["in"], _type(one["schema"]), one.get("description", "")) for one in parameters]
        yield _table(("parameter", "in", "type", "what"), rows)
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"Body: {_type(content['schema'])}"
        for name, example in content.get("examples", {}).items():
            yield f"{example.get('summary', name)}:"
            yield f"```json\n{json.dumps(example['value'], indent=2)}\n```"
    rows = []
    for status, answer in operation["responses"].items():
        media = "; ".join(_type(content.get("schema", {}), name) for name, content in answer.get("content", {}).items())
        rows.append((status, answer["description"], media))
    yield _table(("status", "when", "body"), rows)


def _schema(schema: dict[str, Any]) -> Iterator[str]:
    if text := schema.get("description"):
        yield text
    required = set(schema.get("required", ()))
    rows = [
        (
            f"`{name}`",
            _type(field),
            "required" if name in required else f"`{json.dumps(field['default'])}`" if "default" in field else "",
            field.get("description", ""),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    yield _table(("field", "type", "default", "what"), rows) if rows else _type(schema)


def _type(schema: dict[str, Any], otherwise: str = "any") -> str:
    """A schema in a few words, with links to those that have a section."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[several]))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}))}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_type(schema['additionalProperties'])}"
        case str(kind):
            bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
            shown = [f"{sign} {schema[key]:g}" for key, sign in bounds.items() if key in schema]
            return " ".join([kind, *shown])
    return otherwise


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
