"""The interactive reference at `/docs`: Swagger UI, served from the package, so that it works without internet.

The page may load nothing from elsewhere: its policy allows scripts of this service alone, and no inline script.
"""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from plaudit.errors import NotFound

MEDIA_TYPES = {
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES = resources.files("service.api.routes").joinpath("swagger_ui")

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=HTMLResponse)
async def reference() -> HTMLResponse:
    return HTMLResponse(
        FILES.joinpath("index.html").read_text("utf-8"),
        headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"},
    )


@router.get("/docs/{name}")
async def reference_file(name: str) -> Response:
    if name not in MEDIA_TYPES:
        raise NotFound(f"/docs/{name}: there is no such file; the reference is at /docs")
    headers = {"Cache-Control": "max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response(FILES.joinpath(name).read_bytes(), media_type=MEDIA_TYPES[name], headers=headers)
