"""Remembers which optional parts of a request a model has refused, so that no request to it fails of them twice."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from llm_integration.errors import BackendError, ParameterRefused, RequestRejected, ServerFailed

_REFUSING_WORDS = (
    "not support", "n't support", "unsupported", "deprecated", "not permitted", "not allowed", "not available",
    "unavailable", "unknown", "unrecognized", "unexpected", "extra inputs", "extraneous", "invalid schema",
    "removed", "too complex", "too many", "no endpoints found", "response_format.type' must be", "input should be",
)  # fmt: skip


class Concessions:
    """What each model is no longer sent; `words` are those that a refusal names each part by, in lower case."""

    def __init__(self, words: Mapping[str, Collection[str]]) -> None:
        self._words = words
        self._refused: defaultdict[str, set[str]] = defaultdict(set)

    def refused(self, model: str) -> Collection[str]:
        """The parts that `model` does not take."""
        return self._refused[model]

    @contextmanager
    def learning(self, model: str, sent: Collection[str]) -> Iterator[None]:
        """Around a request that had the parts `sent`. A rejection that names one of them is a ParameterRefused.

        So is a 500 that does: llama-cpp-python's server has no other word for a request it cannot read.
        """
        try:
            yield
        except (RequestRejected, ServerFailed) as error:
            part = self._named(error, sent)
            if part is None:
                raise
            refusal = ParameterRefused(
                f"{error}; {model} is asked without {part} from now on",
                status=error.status, headers_at=error.headers_at, reply=error.reply,
            )  # fmt: skip
        else:
            return
        self._refused[model].add(part)
        raise refusal

    def leave_out(self, model: str, part: str) -> None:
        """Send `model` no such part from now on."""
        self._refused[model].add(part)

    def send_again(self, model: str, part: str) -> None:
        """Take that back."""
        self._refused[model].discard(part)

    def _named(self, error: BackendError, sent: Collection[str]) -> str | None:
        said = str(error).lower()
        told = isinstance(error, RequestRejected) or error.status == 500
        if error.status is None or not told or not any(word in said for word in _REFUSING_WORDS):
            return None
        return next((part for part in sent if any(word in said for word in self._words[part])), None)
