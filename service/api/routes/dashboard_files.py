"""The page at `/` and its files. It runs under a policy that lets in nothing but files of its own origin."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from plaudit.errors import NotFound
from service.api.routes.page_files import page_files

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def dashboard(request: Request) -> Response:
    return page_files("dashboard")["index.html"].response(request, CSP)


@router.get("/dashboard/{path:path}", include_in_schema=False)
async def dashboard_file(request: Request, path: str) -> Response:
    files = page_files("dashboard")
    if path not in files:
        raise NotFound(f"the page has no file {path!r}")
    return files[path].response(request, CSP)
