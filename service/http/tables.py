"""Lists as CSV for whoever asks so by `Accept: text/csv`, with the cells of our CSV files: no formula gets through."""

from decimal import Decimal

import orjson
from aiohttp import web
from aiohttp.hdrs import ACCEPT

from llm_integration.csv_rows import Kind, Layout
from service.http.answers import JSON

CSV = "text/csv"
N, P, W, X = Kind.NUMBER, Kind.PLAIN, Kind.NAME, Kind.TEXT
SIGNALS = Layout(
    "signals.csv",
    (
        ("signal", P), ("source", W), ("symbol", W), ("timeframe", W), ("close_time", P), ("strategy", W), ("side", W),
        ("strength", N), ("price", N), ("origin", W), ("status", W), ("rating", N), ("confidence", N), ("action", W),
        ("rationale", X), ("abstention", X), ("error", X), ("model", W), ("fallback", P), ("cost_usd", N),
        ("processing_ms", N), ("finished_at", P), ("decision", W),
        ("decision_reasons", X),
    ),
    (),
)  # fmt: skip
TIMES = {"close_time", "finished_at", "open_time"}
BARS = Layout(
    "bars.csv", (("open_time", P), ("open", N), ("high", N), ("low", N), ("close", N), ("volume", N)), ()
)  # fmt: skip


def wants_csv(request: web.Request) -> bool:
    """Whether CSV is named, and no less wanted than JSON, be that by `*/*`."""
    wanted: dict[str, float] = {}
    for part in ",".join(request.headers.getall(ACCEPT, [])).split(","):
        media, *options = (piece.strip().lower() for piece in part.split(";"))
        quality = next((option[2:] for option in options if option.startswith("q=")), "1")
        wanted[media] = _number(quality)
    json = next((wanted[media] for media in (JSON, "application/*", "*/*") if media in wanted), 0.0)
    csv = wanted.get(CSV, 0.0)
    return csv > 0 and csv >= json


def csv_answer(layout: Layout, items: str, next_cursor: str | None) -> web.Response:
    """A list in JSON as a file of its own name; where to go on is in the header X-Next-Cursor."""
    columns = [(name, name in TIMES) for name in layout.names]
    rows = [[_cell(item[name], is_time=is_time) for name, is_time in columns] for item in orjson.loads(items)]
    headers = {"Content-Disposition": f'attachment; filename="{layout.file}"', "Vary": "Accept"}
    if next_cursor is not None:
        headers["X-Next-Cursor"] = next_cursor
    return web.Response(body=layout.head + layout.render(rows), content_type=CSV, charset="utf-8", headers=headers)


def _cell(value: object, *, is_time: bool) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return " | ".join(value)
    if is_time:
        return str(value)[:19].replace("T", " ")
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    return str(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
