"""GET / and /static: the page, files of `service/page` as they lie there, packed once and cached by their content."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from aiohttp import web

from service.http.access import needs
from service.http.answers import Refused
from service.http.documented import Answer, documented

if TYPE_CHECKING:
    from service.daemon import Daemon

INDEX = "index.html"
VERSION_MARK = b"__VERSION__"
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
TEXT = {"type": "string"}
A_YEAR = "public, max-age=31536000, immutable"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is and gzipped."""

    body: bytes
    packed: bytes
    content_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Site:
    """Every file by its name. `version` names them all together: it is in their URLs, so they can be kept for ever."""

    version: str
    assets: dict[str, Asset]


def read_site() -> Site:
    """The files of the package. Reads the disk and packs: call it in a thread."""
    found = {
        path.name: path.read_bytes()
        for path in resources.files("service.page").iterdir()
        if path.name.rpartition(".")[2] in TYPES
    }
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(name.encode() + b"\0" + found[name] + b"\0")
    version = whole.hexdigest()[:12]
    assets = {
        name: _asset(name, body.replace(VERSION_MARK, version.encode()) if name == INDEX else body)
        for name, body in found.items()
    }
    return Site(version, assets)


def routes(daemon: Daemon) -> list[web.RouteDef]:
    """Where this part is answered."""
    return page_routes()


def page_routes() -> list[web.RouteDef]:
    """The page's routes: they need no daemon, all that is in the page comes by the API."""
    reading: list[asyncio.Task[Site]] = []

    async def site() -> Site:
        if not reading or (reading[0].done() and reading[0].exception() is not None):
            reading[:] = [asyncio.create_task(asyncio.to_thread(read_site), name="page")]
        return await asyncio.shield(reading[0])

    @needs(None)
    @documented("The page.", answers={200: Answer("HTML.", {"text/html": TEXT}), 304: Answer("As it was.")})
    async def index(request: web.Request) -> web.Response:
        return _answer(request, (await site()).assets[INDEX], "no-cache")

    @needs(None)
    @documented(
        "A file of the page.",
        answers={200: Answer("The file.", dict.fromkeys(TYPES.values(), TEXT)), 304: Answer("As it was.")},
        path={
            "version": "What the page was made of; another gets the same file, but not to keep.",
            "name": "Its name.",
        },
    )
    async def static(request: web.Request) -> web.Response:
        files = await site()
        name, version = request.match_info["name"], request.match_info["version"]
        if name == INDEX or name not in files.assets:
            raise Refused(404, "the page has no such file; open / instead")
        return _answer(request, files.assets[name], A_YEAR if version == files.version else "no-cache")

    return [web.get("/", index), web.get("/static/{version}/{name}", static)]


def _asset(name: str, body: bytes) -> Asset:
    content_type = TYPES[name.rpartition(".")[2]]
    etag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Asset(body, gzip.compress(body, 9, mtime=0), content_type, etag)


def _answer(request: web.Request, asset: Asset, caching: str) -> web.Response:
    headers = {**HEADERS, "ETag": asset.etag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        body = asset.packed
    return web.Response(body=body, headers=headers, content_type=asset.content_type, charset="utf-8")
