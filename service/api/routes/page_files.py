"""Files of pages in the package, read once: in memory they are a few hundred kilobytes, and 2 MB with Swagger UI."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import Request
from fastapi.responses import Response

MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    content: bytes
    media_type: str
    etag: str

    def response(self, request: Request, policy: str) -> Response:
        """The file under a policy; 304 for a browser that has it. It asks each time, so an upgrade shows at once."""
        own = {
            "ETag": self.etag,
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": policy,
        }
        if request.headers.get("if-none-match", "").removeprefix("W/") == self.etag:
            return Response(status_code=304, headers=own)
        return Response(self.content, headers=own, media_type=self.media_type)


@functools.cache
def page_files(folder: str) -> dict[str, PageFile]:
    """The files of a folder beside this module, by their path in it."""
    files: dict[str, PageFile] = {}

    def read(place: Traversable, prefix: str) -> None:
        for entry in place.iterdir():
            ending = entry.name.rpartition(".")[2]
            if entry.is_dir():
                read(entry, f"{prefix}{entry.name}/")
            elif ending in MEDIA_TYPES:
                content = entry.read_bytes()
                etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                files[prefix + entry.name] = PageFile(content, MEDIA_TYPES[ending], etag)

    read(resources.files("service.api.routes").joinpath(folder), "")
    return files
