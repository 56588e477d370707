"""Standard Webhooks signatures: `v1,` and the HMAC-SHA256 of `id.timestamp.body`, base64; made and checked.

https://github.com/standard-webhooks/standard-webhooks: headers webhook-id, webhook-timestamp (seconds since 1970) and
webhook-signature, several signatures parted by spaces.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import sha256

from llm_integration.settings_sources import secret
from trading.errors import SettingsError, TradentError

SECRET_NAME = "TRADENT_WEBHOOK_SECRET"
TOLERANCE_S = 300
PREFIX = "whsec_"
MOST_ID = 200
MOST_SIGNATURES = 10


class BadSignature(TradentError):
    """A request is not signed with our secret, or not now."""


def signing_key(name: str) -> bytes | None:
    """The key that a secret by this name holds; None where there is none. Raises SettingsError."""
    text = secret(name)
    if text is None:
        return None
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 16 <= len(key) <= 128:
        raise SettingsError(
            [
                f"{name}: is no secret; expected `whsec_` and 16 to 128 bytes in base64, such as of "
                "`openssl rand -base64 32`"
            ]
        )
    return key


def signature(key: bytes, message_id: str, timestamp: int | str, body: bytes) -> str:
    """The signature of a message, as it stands in its header."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, sha256)).decode()


def signed_headers(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What a signed message is sent with."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, message_id, timestamp, body),
    }


def verified_id(key: bytes, headers: Mapping[str, str], body: bytes, now_s: float) -> str:
    """The id of a message that is signed with `key` and no older than five minutes. Raises BadSignature."""
    given = {name: headers.get(name, "").strip() for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    for name, value in given.items():
        if not value:
            raise BadSignature(f"{name} is missing")
    message_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
    if len(message_id) > MOST_ID or not message_id.isascii() or not message_id.isprintable():
        raise BadSignature(f"webhook-id must be {MOST_ID} plain characters at most")
    if not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise BadSignature("webhook-timestamp must be whole seconds since 1970")
    signatures = given["webhook-signature"].split()[:MOST_SIGNATURES]
    expected = signature(key, message_id, timestamp, body).encode()
    matches = [hmac.compare_digest(expected, each.encode("utf-8", "surrogateescape")) for each in signatures]
    if not any(matches):
        raise BadSignature("webhook-signature does not fit the body: sign id.timestamp.body with the secret given here")
    if abs(now_s - int(timestamp)) > TOLERANCE_S:
        raise BadSignature(f"webhook-timestamp is more than {TOLERANCE_S} s from now: send it anew, and set the clock")
    return message_id
