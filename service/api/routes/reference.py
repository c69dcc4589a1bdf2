"""The interactive reference at `/docs`: Swagger UI, served from the package, so that it works without internet.

The page may load nothing from elsewhere: its policy allows scripts of this service alone, and no inline script.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from plaudit.errors import NotFound
from service.api.routes.page_files import page_files

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=HTMLResponse)
async def reference(request: Request) -> Response:
    return page_files("swagger_ui")["index.html"].response(request, POLICY)


@router.get("/docs/{name}")
async def reference_file(request: Request, name: str) -> Response:
    files = page_files("swagger_ui")
    if name not in files:
        raise NotFound(f"/docs/{name}: there is no such file; the reference is at /docs")
    return files[name].response(request, POLICY)
