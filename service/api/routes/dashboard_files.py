"""The page at `/` and its files. It runs under a policy that lets in nothing but files of its own origin."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from plaudit.errors import NotFound

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

router = APIRouter()


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    media_type: str
    etag: str


@functools.cache
def page_files() -> dict[str, PageFile]:
    """The files by their path, read once."""
    files: dict[str, PageFile] = {}

    def read(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                read(entry, f"{prefix}{entry.name}/")
            elif entry.name.rpartition(".")[2] in MEDIA_TYPES:
                content = entry.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                files[prefix + entry.name] = PageFile(content, MEDIA_TYPES[entry.name.rpartition(".")[2]], etag)

    read(resources.files("service.api.routes").joinpath("dashboard"), "")
    return files


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def dashboard(request: Request) -> Response:
    return _answer(request, page_files()["index.html"], {"Content-Security-Policy": CSP})


@router.get("/dashboard/{path:path}", include_in_schema=False)
async def dashboard_file(request: Request, path: str) -> Response:
    if path not in page_files():
        raise NotFound(f"the page has no file {path!r}")
    return _answer(request, page_files()[path], {})


def _answer(request: Request, file: PageFile, headers: dict[str, str]) -> Response:
    """The file; 304 for a browser that has it. It asks each time, so an upgrade shows at once."""
    headers |= {"ETag": file.etag, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    if request.headers.get("if-none-match", "").removeprefix("W/") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
