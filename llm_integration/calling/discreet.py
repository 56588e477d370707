"""Keeps what was sent and answered out of error messages, where `llm.audit.redact` leaves those texts out.

Servers quote what they find fault with, and messages go where texts are not to be: tables, files, the log.
"""

import re
from collections.abc import Iterable
from typing import Literal

from llm_integration.calling.wrapper import Wrapper
from llm_integration.errors import BackendError
from llm_integration.ports import Backend, ChatReply, ChatRequest

Redact = Literal["nothing", "messages", "everything"]
_RUN = 4
_WORD = re.compile(r"[^\W_]+")


class Discreet(Wrapper):
    """A Backend whose errors quote nothing of the request and, with `everything`, nothing of a reply.

    A message that quotes is replaced as a whole; class, status and all else of the error stay, and so does its `reply`,
    which is for whoever records the call to leave out.
    """

    def __init__(self, inner: Backend, redact: Redact) -> None:
        super().__init__(inner)
        self._redact = redact

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply. Raises BackendError."""
        try:
            return await self._inner.chat(request)
        except BackendError as error:
            if self._quotes(error, request):
                status = "" if error.status is None else f" ({error.status})"
                error.args = (
                    f"{self.name} failed{status}; what was said quotes texts that llm.audit.redact leaves out",
                )
            raise

    def _quotes(self, error: BackendError, request: ChatRequest) -> bool:
        texts = [message.content for message in request.messages]
        refused = error.status is not None and error.status >= 400
        if self._redact == "everything" and error.reply and not refused:
            texts.append(error.reply)
        return self._redact != "nothing" and shares_words(str(error), texts)


def shares_words(said: str, texts: Iterable[str]) -> bool:
    """Whether `said` has four words in a row, or all of fewer, in common with any of the texts, however written."""
    spoken = _WORD.findall(said.casefold())
    for text in texts:
        words = _WORD.findall(text.casefold())
        length = min(_RUN, len(words))
        if length and not _runs(words, length).isdisjoint(_runs(spoken, length)):
            return True
    return False


def _runs(words: list[str], length: int) -> set[tuple[str, ...]]:
    return {tuple(words[start : start + length]) for start in range(len(words) - length + 1)}
