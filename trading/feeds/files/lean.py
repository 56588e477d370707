"""What the place of a file in a Lean data folder says of it: day, zone, scale of prices, contract."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from trading.errors import UnreadableFile
from trading.feeds.files.containers import Member
from trading.feeds.files.names import stem
from trading.feeds.files.options import FileOptions
from trading.feeds.files.raw import Hints, RawTable


@dataclass(frozen=True, slots=True)
class _Market:
    """What is fixed for a market of a Lean data folder: its zone, and what its figures are multiplied by."""

    timezone: str
    scale: float = 1.0


_LEAN: Mapping[tuple[str, str], _Market] = {
    ("equity", "usa"): _Market("America/New_York", 0.0001),
    ("option", "usa"): _Market("America/New_York", 0.0001),
    ("equity", "india"): _Market("Asia/Kolkata", 0.0001),
    ("index", "india"): _Market("Asia/Kolkata"),
    ("forex", "oanda"): _Market("UTC"),
    ("cfd", "oanda"): _Market("UTC"),
    **{("future", exchange): _Market("UTC") for exchange in ("cme", "cbot", "nymex", "comex")},
}
_LEAN_KINDS = "equity|option|indexoption|futureoption|index|forex|cfd|future|crypto|cryptofuture"
_LEAN_FOLDER = re.compile(
    rf"(?:^|/)(?P<kind>{_LEAN_KINDS})/(?P<market>[a-z]+)/(?P<resolution>tick|second|minute|hour|daily)/(?P<rest>[^:]+)$"
)
_LEAN_MEMBER = re.compile(
    r"(?P<day>\d{8})_(?P<ticker>.+?)_(?P<resolution>second|minute)_(?P<what>\w+?)(?:_(?P<contract>\d{6,8}))?"
)
_LEAN_TIME = re.compile(r"\d{8} \d{2}:\d{2}")
_LEAN_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "daily": 86400}


def lean_hints(raw: RawTable, member: Member, options: FileOptions) -> Hints | None:
    """What a file of a Lean data folder leaves to its place: day, zone, scale, contract. None when it is none.

    A member of a zip is one contract of one day; a contract's month becomes part of the symbol (ES-201312).
    Raises UnreadableFile.
    """
    inner = _LEAN_MEMBER.fullmatch(stem(member.name))
    folder = _LEAN_FOLDER.search(member.path.absolute().as_posix().lower())
    if inner is None and (folder is None or not _LEAN_TIME.fullmatch(str(raw.sample(0)[0]))):
        return None
    what = inner["what"] if inner is not None else stem(member.path.name).rpartition("_")[2]
    if what in ("quote", "openinterest") or (folder is not None and folder["resolution"] == "tick"):
        raise UnreadableFile(f"{member.label}: quotes, ticks and open interest are no bars; set path to trade bars")
    hints = _lean_market(member, folder, options)
    if inner is not None:
        text = inner["day"]
        try:
            day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
        except ValueError:
            raise UnreadableFile(f"{member.label}: {text} in the name is no date, and times are of a day") from None
        ticker = folder["rest"].partition("/")[0] if folder is not None else inner["ticker"]
        contract = f"-{inner['contract']}" if inner["contract"] else ""
        names = ("time", "open", "high", "low", "close", "volume")
        return replace(
            hints,
            symbol=ticker.upper() + contract,
            timeframe_s=_LEAN_SECONDS[inner["resolution"]],
            day=day,
            names=names,
        )
    assert folder is not None
    ticker = re.sub(r"_(trade|quote)$", "", stem(folder["rest"].rpartition("/")[2]))
    return replace(hints, symbol=ticker.upper(), timeframe_s=_LEAN_SECONDS[folder["resolution"]])


def _lean_market(member: Member, folder: re.Match[str] | None, options: FileOptions) -> Hints:
    if folder is not None and folder["kind"] in ("crypto", "cryptofuture"):
        return Hints(timezone="UTC")
    market = _LEAN.get((folder["kind"], folder["market"])) if folder is not None else None
    if market is not None:
        return Hints(timezone=market.timezone, price_scale=market.scale if market.scale != 1.0 else None)
    if options.timezone is None or options.price_scale is None:
        raise UnreadableFile(
            f"{member.label}: times are milliseconds of a day in a zone, and prices on a scale, that its "
            "place does not say; set timezone and price_scale (1 or 0.0001)"
        )
    return Hints()
