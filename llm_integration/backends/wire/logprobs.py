"""Reads the probabilities of a reply's tokens, as chat completions have them."""

import codecs
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from llm_integration.ports import TokenLogprob

_BROKEN = "\ufffd"
_SPELT = "bytes:"


def token_logprobs(entries: object, text: str, clean: Callable[[str], str]) -> tuple[TokenLogprob, ...]:
    """The tokens of `logprobs.content` that make the reply's `text`, in order; none at all where they do not.

    Joined, they are the text: what the server took off around it (a fence, thoughts) is taken off them, and of a
    character made of several tokens, the last one has it all. The alternatives are those beside the token itself.
    """
    tokens = _tokens(entries, clean)
    start = "".join(one.token for one in tokens).rfind(text)
    if not text or start < 0:
        return ()
    kept, place, end = [], 0, start + len(text)
    for one in tokens:
        token = one.token[max(0, start - place) : max(0, end - place)]
        if token or (not one.token and start <= place < end):
            kept.append(replace(one, token=token))
        place += len(one.token)
    return tuple(kept)


def _tokens(entries: object, clean: Callable[[str], str]) -> tuple[TokenLogprob, ...]:
    """The tokens as they came; none where one of them cannot be read."""
    if not isinstance(entries, list):
        return ()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    read = []
    for entry in entries:
        if not isinstance(entry, dict):
            return ()
        said, logprob = entry.get("token"), _logprob(entry.get("logprob"))
        if not isinstance(said, str) or logprob is None:
            return ()
        raw = _bytes(entry.get("bytes")) if _broken(said) else None
        if raw is not None:
            token = decoder.decode(raw)
        else:
            token = decoder.decode(b"", final=True) + said
            decoder.reset()
        read.append(TokenLogprob(clean(token), logprob, _alternatives(said, entry.get("top_logprobs"), clean)))
    return tuple(read)


def _alternatives(said: str, entries: object, clean: Callable[[str], str]) -> tuple[tuple[str, float], ...]:
    others: list[tuple[str, float]] = []
    itself = False
    for entry in entries if isinstance(entries, list) else ():
        token, logprob = (entry.get("token"), _logprob(entry.get("logprob"))) if isinstance(entry, dict) else (None, 0)
        if not isinstance(token, str) or logprob is None:
            continue
        if token == said and not itself:
            itself = True
            continue
        raw = _bytes(entry.get("bytes")) if _broken(token) else None
        others.append((clean(token if raw is None else raw.decode("utf-8", "replace")), logprob))
    return tuple(others)


def _broken(token: str) -> bool:
    """Whether a token is no text of its own: a part of a character, which some servers spell out."""
    return _BROKEN in token or token.startswith(_SPELT) or any("\ud800" <= letter <= "\udfff" for letter in token)


def _bytes(value: object) -> bytes | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one <= 255 for one in value):
        return None
    return bytes(value)


def _logprob(value: object) -> float | None:
    """A natural logarithm of a probability; those that are rounded to above 0 are 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > 0.01:
        return None
    return min(0.0, float(value))
