"""Keeps API keys, and passwords in addresses, out of everything that is kept or shown."""

from base64 import b64encode
from urllib.parse import quote, unquote, urlsplit

_MARK = "[key removed]"
_SHORTEST = 4


class Scrubber:
    """Takes secrets out of texts, however they are quoted. Those under four characters are taken for words."""

    def __init__(self, *secrets: str | None) -> None:
        forms = {
            form
            for secret in secrets
            if secret and len(secret) >= _SHORTEST
            for form in (secret, quote(secret, safe=""), secret.replace("/", "\\/"))
        }
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MARK)
        return text

    def trickle(self) -> "Trickle":
        """The same for a text that comes in pieces."""
        return Trickle(self, self._forms)


def in_address(url: str) -> tuple[str, ...]:
    """What is secret in an address: its password, and the header that is made of it."""
    parts = urlsplit(url)
    if not parts.password:
        return ()
    password = unquote(parts.password)
    both = f"{unquote(parts.username or '')}:{password}"
    return parts.password, password, b64encode(both.encode()).decode()


def without_password(url: str) -> str:
    """An address as it may be kept and shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Trickle:
    """Takes the secrets out of a text that comes in pieces, also where it is split over several.

    What may yet turn out to be its beginning is held back until the next piece, or the end; so is half a character.
    """

    def __init__(self, scrub: Scrubber, forms: list[str]) -> None:
        self._scrub = scrub
        self._forms = forms
        self._held = ""

    def feed(self, piece: str) -> str:
        """What can be handed on by now."""
        text = self._scrub(self._held + piece)
        begun = (
            end for form in self._forms for end in range(1, min(len(form), len(text) + 1)) if text.endswith(form[:end])
        )
        held = max(begun, default=0)
        if not held and text and "\ud800" <= text[-1] <= "\udbff":
            held = 1
        self._held = text[len(text) - held :]
        return mended(text[: len(text) - held])

    def rest(self) -> str:
        """What is left at the end."""
        text, self._held = self._held, ""
        return mended(text)


def mended(text: str) -> str:
    """Text that can be encoded: halves of a character that stand together are joined, single ones become "?"."""
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return joined.encode("utf-8", "replace").decode("utf-8")


def sendable(key: str) -> bool:
    """Whether a key can stand in an HTTP header."""
    return key.isascii() and key.isprintable() and bool(key.strip())
