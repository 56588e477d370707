"""What servers do wrong, each of it a `Fault`, and a server's default answer that does one of them now and then."""

import json
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from tests.servers import Answer, Break, Hang, Json, Step, Stream, completion, rate_all
from trading.clock import Clock

Fault = Callable[[Answer, random.Random], Step]


class Mischief:
    """What a server does with each request, by chance: answers well, or in one of many ways does not."""

    def __init__(self, chance: random.Random, share: float, clock: Clock, kinds: Sequence[Fault]) -> None:
        self.arrivals: list[float] = []
        self._share = share
        self._kinds = kinds
        self._chance = chance
        self._clock = clock

    def __call__(self, body: Json) -> Step:
        self.arrivals.append(self._clock.monotonic())
        good = rate_all(body)
        if self._chance.random() >= self._share or "canary" in json.dumps(body.get("response_format", "")):
            return good
        return self._chance.choice(self._kinds)(good, self._chance)

    def most_in_a_window(self, window_s: float) -> int:
        """The most requests that arrived in any so many seconds."""
        times = sorted(self.arrivals)
        return max((bisect_left(times, at + window_s) - place for place, at in enumerate(times)), default=0)


def _said(status: int, message: str, **headers: str) -> Fault:
    body = {"error": {"code": status, "message": message}}
    return lambda good, chance: Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def _inside(status: int, message: str) -> Fault:
    return lambda good, chance: Answer({"error": {"code": status, "message": message}})


def _as(**fields: Any) -> Fault:
    return lambda good, chance: Answer({**good.body, **fields})


def _saying(change: Callable[[str, random.Random], str]) -> Fault:
    """The good answer, its text changed."""

    def answer(good: Answer, chance: random.Random) -> Step:
        return Answer(completion(change(good.body["choices"][0]["message"]["content"], chance)))

    return answer


def _mixed_up(text: str, chance: random.Random) -> str:
    """Verdicts of a batch left out, doubled or with each other's numbers; one alone for another symbol."""
    found = json.loads(text)
    verdicts = found.get("verdicts")
    if not verdicts:
        return json.dumps({"symbol": "DOGE/EUR", **found})
    what = chance.choice(["drop", "double", "swap", "number", "foreign"])
    if what == "drop":
        verdicts.pop(chance.randrange(len(verdicts)))
    elif what == "double":
        verdicts.append({**chance.choice(verdicts), "rating": 1})
    elif what == "swap":
        chance.shuffle(verdicts)
    elif what == "number":
        chance.choice(verdicts)["signal"] = chance.choice([0, -1, 99, "one", None])
    else:
        chance.choice(verdicts)["symbol"] = "DOGE/EUR"
    return json.dumps(found)


def _usage(chance: random.Random) -> Json:
    odd = [-5, 10**30, "many", None, 1.5, True, float("inf"), {}]
    return {name: chance.choice(odd) for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cost")}


FAULTS: Sequence[Fault] = (
    _said(429, "slow down"),
    _said(429, "slow down", Retry_After="2"),
    _said(429, "slow down", Retry_After="-7"),
    _said(500, "oops"),
    _said(502, "bad gateway"),
    _said(503, "loading", Retry_After="1"),
    _said(529, "overloaded"),
    _said(408, "too slow"),
    _said(413, "maximum context length exceeded"),
    _said(400, "response_format is not supported by this model"),
    _said(400, "no"),
    _inside(502, "upstream is down"),
    _inside(429, "rate limited upstream"),
    lambda good, chance: Answer({"choices": [{"error": {"code": 502, "message": "x"}, "finish_reason": "error"}]}),
    _as(choices=None),
    _as(choices=[]),
    lambda good, chance: Answer({"provider": good.body}),
    lambda good, chance: Answer("   \n ."),
    lambda good, chance: Answer('{"choices": [{"message": {"content": "{'),
    lambda good, chance: Answer("x" * 3_000_000),
    lambda good, chance: Answer([1, 2, 3]),
    lambda good, chance: Answer(b"\xff\xfe\x00"),
    lambda good, chance: Hang(),
    lambda good, chance: Hang(after_headers=True),
    lambda good, chance: Break(),
    lambda good, chance: Break(before_headers=True),
    lambda good, chance: Stream(['{"choices": ['], "break"),
    _saying(lambda text, chance: "I would rather not say."),
    _saying(lambda text, chance: text[: len(text) // 2]),
    _saying(lambda text, chance: ""),
    _saying(lambda text, chance: text + text),
    _saying(_mixed_up),
    _saying(_mixed_up),
    lambda good, chance: Answer({**good.body, "usage": _usage(chance)}),
    lambda good, chance: Answer(json.dumps({**good.body, "usage": _usage(chance)}).replace("Infinity", "1e999")),
)
LASTING: Sequence[Fault] = (
    _said(401, "no such key"),
    _said(402, "no credit"),
    _said(403, "not allowed"),
    _said(404, "model not found"),
)
