"""Keeps an API key out of everything that is kept or shown."""

from urllib.parse import quote

_MARK = "[key removed]"
_SHORTEST = 4


class Scrubber:
    """Takes one key out of texts, however it is quoted. Keys under four characters are taken for words."""

    def __init__(self, key: str | None) -> None:
        forms = {key, quote(key, safe=""), key.replace("/", "\\/")} if key and len(key) >= _SHORTEST else set()
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            if form in text:
                text = text.replace(form, _MARK)
        return text


def sendable(key: str) -> bool:
    """Whether a key can stand in an HTTP header."""
    return key.isascii() and key.isprintable() and bool(key.strip())
