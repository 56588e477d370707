"""A hook's body as it came: JSON, a form or text, whatever its type is said to be."""

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote_plus

from service.hooks.fields import NotUnderstood, require_filled, shown

LARGEST_BYTES = 64 * 1024
DEEPEST = 6
MOST_KEYS = 200
FORM = "application/x-www-form-urlencoded"
WRAPPERS = frozenset({"data", "payload", "body", "params", "args", "json", "content", "webhook"})
_FORM = re.compile(r"[\w.\[\]%-]{1,60}=[^\s]*")
_JSON = re.compile(r'[{"]|\[\s*[\[\]{"\d-]')
_SETTINGS = re.compile(r"[\s;,|]\s*[\w.]+=")
Payload = Mapping[str, Any] | str


def read_body(body: bytes, content_type: str) -> Payload:
    """An object by its keys as `flat` makes them, or a text. Raises NotUnderstood."""
    if len(body) > LARGEST_BYTES:
        raise NotUnderstood("", f"the body is {len(body)} bytes long; {LARGEST_BYTES} are the most")
    try:
        text = body.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise NotUnderstood("", "the body is no UTF-8 text") from None
    form = content_type.partition(";")[0].strip().lower() == FORM
    if form and text.startswith("%7B"):
        text = unquote_plus(text).strip()
    if form and text.startswith("{"):
        text = text.removesuffix("=")
    if not text:
        raise NotUnderstood("", "the body is empty")
    if "\0" in text:
        raise NotUnderstood("", "the body holds a NUL character")
    if _JSON.match(text):
        return _of_json(text)
    if "=" in text and (form or _FORM.fullmatch(text)) and ("&" in text or not _SETTINGS.search(text)):
        return _of_form(text)
    return text


def _of_json(text: str) -> Payload:
    value = parse_json(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        if not value.strip():
            raise NotUnderstood("", "the body is empty")
        return flat(inner) if (inner := _object_in(value)) is not None else value.strip()
    if not isinstance(value, dict):
        raise NotUnderstood("", "the body must be one JSON object, a form or a text")
    return flat(value)


def parse_json(text: str) -> Any:
    """Strict JSON: no key twice, no NaN, bounded depth. Raises NotUnderstood."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        require_filled("", text)
        raise NotUnderstood("", f"the body is no JSON: {_wrong(text, error)} at character {error.pos}") from None
    except RecursionError:
        raise NotUnderstood("", "the body's JSON is nested too deeply") from None
    except ValueError:
        raise NotUnderstood("", "the body's JSON holds a number that is too long") from None


def _wrong(text: str, error: json.JSONDecodeError) -> str:
    """What people get wrong most, in words of their own."""
    rest, before = text[error.pos :], text[: error.pos].rstrip()
    if rest[:1] in ("\u201c", "\u201d", "\u201e", "\u2018", "\u2019", "'"):
        return f'{rest[0]} is no quotation mark of JSON, write "'
    if error.msg.startswith("Illegal trailing comma") or (before.endswith(",") and rest.lstrip()[:1] in ("}", "]")):
        return "a comma before the end, take it out,"
    if error.msg.startswith("Invalid control character"):
        return "a line break within a text, write \\n,"
    if error.msg == "Expecting value" and rest[:1].isalpha():
        return f'{shown(rest.split(",")[0].split("}")[0].strip())} has no quotation marks, put " around it,'
    return error.msg


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object's values by their path in small letters without signs: {"bar": {"Close": 1}} has `barclose`.

    Objects named as wrappers are (`data`, `payload`) add nothing to the path, nor do those that are JSON in a text.
    """
    found: dict[str, Any] = {}
    _flatten(value, "", 1, found)
    return found


def _flatten(value: Mapping[str, Any], before: str, depth: int, found: dict[str, Any]) -> None:
    if depth > DEEPEST:
        raise NotUnderstood("", "the body's JSON is nested too deeply")
    for key, item in value.items():
        name = before + re.sub(r"[\W_]", "", str(key)).lower()
        written = _object_in(item) if isinstance(item, str) else None
        inner = item if isinstance(item, Mapping) else written
        if inner is not None:
            wraps = written is not None or name[len(before) :] in WRAPPERS
            _flatten(inner, before if wraps else name, depth + 1, found)
            continue
        if name in found:
            raise NotUnderstood(shown(key), "is given twice")
        if len(found) >= MOST_KEYS:
            raise NotUnderstood("", f"the body has more than {MOST_KEYS} keys")
        found[name] = item


def _object_in(text: str) -> Mapping[str, Any] | None:
    """The JSON object that a text is; None where it is none."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        inner = parse_json(text)
    except NotUnderstood:
        return None
    return inner if isinstance(inner, dict) else None


def _of_form(text: str) -> Payload:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_KEYS
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError):
        raise NotUnderstood("", "the body is no form") from None
    return flat(_once(pairs))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotUnderstood(shown(key), "is given twice")
        found[key] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise NotUnderstood("", f"the body is no JSON: {name} is no number")
