"""Reads a settings file: JSON, and nothing in it that means two things or none."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trading.errors import SettingsError

LARGEST_BYTES = 4 << 20
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]|NaN|-?Infinity|-?\d[\d.eE+-]*')
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_settings_file(path: Path) -> dict[str, Any]:
    """What a settings file says. Raises SettingsError with the line of each mistake."""
    text = _text(path)
    if not text.strip():
        raise SettingsError([f"{path}: is empty; write {{}} into it for the defaults"])
    try:
        value = parse_json(text)
    except json.JSONDecodeError as error:
        line, column = error.lineno, error.colno
        raise SettingsError([f"{path}: line {line}, column {column}: {_in_words(text, error)}"]) from None
    except RecursionError:
        raise SettingsError([f"{path}: is nested too deeply to be settings"]) from None
    if not isinstance(value, dict):
        raise SettingsError([f"{path}: expected a JSON object of settings at the top"])
    if odd := [f"{path}: {mistake}" for mistake in odd_things(text)]:
        raise SettingsError(odd)
    return value


def parse_json(text: str) -> Any:
    """The JSON in a text; a number too long to be one comes as infinity. Raises JSONDecodeError, RecursionError."""
    return json.loads(text, parse_int=_int)


def odd_things(text: str) -> Iterator[str]:
    """What valid JSON may hold and settings may not, with its line: a key given twice, a number that is none."""
    keys: list[set[str]] = []
    names: list[str] = []
    last = ""
    for match in _TOKENS.finditer(text):
        token = match[0]
        if token in "{[":
            keys.append(set())
            names.append("")
        elif token in "}]":
            keys.pop()
            names.pop()
        elif token == ":":
            names[-1] = json.loads(last)
            if names[-1] in keys[-1]:
                yield f"line {_line(text, match)}: {_key(names)} is set twice; keep one of them"
            keys[-1].add(names[-1])
        elif token[0] != '"' and not math.isfinite(float(token)):
            what = "is no number" if token[-1].isalpha() else "is too large a number"
            yield f"line {_line(text, match)}: {_key(names)}: {token[:40]} {what}".replace(": :", ":")
        last = token


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def _key(names: list[str]) -> str:
    return ".".join(name for name in names if name)


def _int(text: str) -> int | float:
    return int(text) if len(text) < 1000 else math.inf


def _text(path: Path) -> str:
    """The file's text. A pipe is read like a file, once."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(
            [f"{path}: there is no such file; name one with --config, or write {{}} into it for the defaults"]
        ) from None
    except OSError as error:
        raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from None
    except ValueError as error:
        raise SettingsError([f"{path}: cannot be the name of a file: {error}"]) from None
    if len(data) > LARGEST_BYTES:
        raise SettingsError([f"{path}: is larger than {LARGEST_BYTES >> 20} MiB, so it is no settings file"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        what = "UTF-16" if data.startswith(_UTF16) else "not UTF-8"
        raise SettingsError([f"{path}: is {what} text; save it as UTF-8"]) from None


def _in_words(text: str, error: json.JSONDecodeError) -> str:
    """The decoder's message, and what to do where it is one of the usual slips."""
    before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if before.endswith(",") and after[:1] in ("}", "]"):
        return f"there is a comma before the {after[0]}; take it out"
    if after.startswith(("//", "/*", "#")):
        return "JSON has no comments; take it out"
    if after.startswith("'"):
        return "a text stands in double quotes"
    return error.msg
