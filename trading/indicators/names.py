"""What an indicator's name says: `<indicator>[_<parameter>…][.<part>]`, as in rsi_14, kc_20_1.5, macd.signal."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from trading.errors import IndicatorError
from trading.indicators.fast import LONGEST, Parameter

_NAME = re.compile(
    r"(?P<stem>[a-z][a-z0-9]*(?:_[a-z0-9]*[a-z][a-z0-9]*)*)"
    r"(?P<numbers>(?:_\d+(?:\.\d+)?)*)"
    r"(?:\.(?P<part>[a-z][a-z0-9_]*))?"
)


@dataclass(frozen=True, slots=True)
class Name:
    """A name taken apart; `numbers` as they were written, `part` None where all outputs are meant."""

    text: str
    stem: str
    numbers: tuple[str, ...]
    part: str | None


def parse(text: str) -> Name:
    """The parts of a name. Raises IndicatorError when it is not built like one."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise IndicatorError(
            f"{text!r} is not an indicator's name; expected lower-case letters, then its parameters, then perhaps a "
            "part, as in rsi_14, bb_upper or macd_12_26_9.signal"
        )
    return Name(text, match["stem"], tuple(match["numbers"].split("_")[1:]), match["part"])


def read_parameters(name: Name, parameters: Sequence[Parameter], given: Sequence[float] = ()) -> list[float | None]:
    """The values of `parameters` as `name` gives them, then as `given`, then their defaults. Raises IndicatorError."""
    if len(name.numbers) > len(parameters):
        known = ", ".join(parameter.name for parameter in parameters)
        takes = f"takes at most {len(parameters)} ({known})" if parameters else "takes none"
        raise IndicatorError(f"{name.text!r} has {len(name.numbers)} parameters; {name.stem} {takes}")
    values: list[float | None] = []
    for position, parameter in enumerate(parameters):
        if position < len(name.numbers):
            values.append(_number(name, parameter, name.numbers[position]))
        else:
            values.append(given[position] if position < len(given) else parameter.default)
    _check_order(name, parameters, values)
    return values


def _number(name: Name, parameter: Parameter, text: str) -> float:
    if parameter.whole:
        if not text.isdecimal():
            raise IndicatorError(f"{name.text!r}: {parameter.name} must be a whole number, not {text}")
        value: float = int(text)
    else:
        value = float(text)
    most = LONGEST if parameter.whole else parameter.most
    if not parameter.least <= value <= most:
        raise IndicatorError(f"{name.text!r}: {parameter.name} must be {parameter.least:g} to {most:g}, not {text}")
    return value


def _check_order(name: Name, parameters: Sequence[Parameter], values: Sequence[float | None]) -> None:
    by_name = {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}
    rising = [(key, by_name[key]) for key in ("fast", "medium", "slow") if by_name.get(key) is not None]
    for (shorter, low), (longer, high) in pairwise(rising):
        if low is not None and high is not None and low >= high:
            raise IndicatorError(f"{name.text!r}: {shorter} ({low:g}) must be less than {longer} ({high:g})")
    length, ddof = by_name.get("length"), by_name.get("ddof")
    if length is not None and ddof is not None and ddof >= length:
        raise IndicatorError(f"{name.text!r}: ddof ({ddof:g}) must be less than length ({length:g})")


def select(name: Name, parts: Sequence[str]) -> dict[str, int]:
    """Column name to output position for what `name` asks. Raises IndicatorError for a part that is not there."""
    if name.part is not None:
        if name.part not in parts:
            others = ", ".join(part for part in parts if part) or "none"
            raise IndicatorError(f"{name.text!r}: {name.stem} has no part {name.part!r}; its parts are: {others}")
        return {name.text: parts.index(name.part)}
    order = sorted(range(len(parts)), key=lambda position: parts[position] != "")
    return {f"{name.text}.{parts[p]}" if parts[p] else name.text: p for p in order}


def unknown(name: Name, known: Iterable[str]) -> IndicatorError:
    """The error for a name nobody knows, with those most like it."""
    known = sorted(known)
    close = get_close_matches(name.stem, known, n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"known are: {', '.join(known)}"
    return IndicatorError(f"no indicator is called {name.stem!r} (in {name.text!r}); {hint}")
