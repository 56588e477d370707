"""How a streamed body is cut into lines and events, kept free of the key, and its tokens read."""

import math
from itertools import pairwise
from typing import Any, AnyStr

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_integration.backends.wire.logprobs import token_logprobs
from llm_integration.backends.wire.secrets import Scrubber
from llm_integration.backends.wire.stream import Event, Events, Lines
from llm_integration.ports import TokenLogprob

KEY = "sk-or-v1-0123456789abcdef"


def cut(data: AnyStr, places: list[int]) -> list[AnyStr]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


def events_in(pieces: list[bytes]) -> list[Event]:
    lines, events = Lines(), Events()
    found = [events.feed(line) for piece in pieces for line in lines.feed(piece)]
    return [event for event in found if event is not None]


@given(st.lists(st.integers(0, 500), max_size=30), st.sampled_from(["\n", "\r\n", "\r"]))
@example(list(range(500)), "\r\n")
def test_events_are_the_same_however_the_bytes_are_split(places: list[int], end: str) -> None:
    """In mid-character, in mid-line, between CR and LF."""
    lines = [
        ": a comment",
        "",
        'data: {"a": "§🎲"}',
        "",
        "event: ping",
        "id: 7",
        "data:x",
        "data: y",
        "",
        "data: [DONE]",
        "",
        "",
    ]
    found = events_in(cut(end.join(lines).encode(), places))
    assert found == [Event("message", '{"a": "§🎲"}'), Event("ping", "x\ny"), Event("message", "[DONE]")]


def test_an_event_without_data_is_none_and_a_field_named_error_is_one() -> None:
    """Comments, retry times and lone names pass; llama-server's older way to tell an error is heard."""
    assert events_in([b': hi\n\nretry: 5\n\nevent: ping\n\nerror: {"code": 500}\n\n']) == [
        Event("error", '{"code": 500}')
    ]


def test_a_name_holds_for_one_event_only() -> None:
    assert events_in([b"event: error\n\ndata: x\n\n"]) == [Event("message", "x")]


@given(
    st.text(alphabet=st.sampled_from("sk-or v1012é"), max_size=30), st.text(max_size=10), st.lists(st.integers(0, 99))
)
def test_the_key_is_taken_out_of_a_text_wherever_it_is_split(before: str, after: str, places: list[int]) -> None:
    """All pieces together are the text without the key, and none but the key's beginning is held back."""
    text = f"{before}{KEY}{after}{KEY[:7]}"
    scrub = Scrubber(KEY)
    trickle = scrub.trickle()
    handed = [trickle.feed(piece) for piece in cut(text, places)]
    assert "".join(handed) + trickle.rest() == scrub(text)


def test_text_that_cannot_be_the_key_is_handed_on_at_once() -> None:
    """Nothing waits for the end without need."""
    trickle = Scrubber(KEY).trickle()
    assert [trickle.feed(piece) for piece in ("abc", "def s", "k", "ip")] == ["abc", "def ", "", "skip"]
    assert Scrubber(None).trickle().feed("sk-") == "sk-"


def test_halves_of_a_character_are_joined_across_pieces() -> None:
    """Some servers escape a character as two surrogates, and split there."""
    trickle = Scrubber(KEY).trickle()
    assert [trickle.feed("a\ud83d"), trickle.feed("\ude00b\ud83d")] == ["a", "😀b"]
    assert trickle.rest() == "?"


def entry(token: str, logprob: object = -0.5, raw: object = None, **fields: Any) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": raw, **fields}


def read(text: str, *entries: object) -> tuple[TokenLogprob, ...]:
    return token_logprobs(list(entries), text, str)


def test_what_a_server_takes_off_around_the_text_is_taken_off_its_tokens() -> None:
    """llama-server drops a fence around JSON, others drop thoughts and blanks."""
    tokens = [entry(token) for token in ("4?", "```", "json\n{", '"a": ', "", "4", "}\n`", "``")]
    assert [one.token for one in read('{"a": 4}', *tokens)] == ["{", '"a": ', "", "4", "}"]
    assert read("", *tokens) == ()
    assert read("4", entry("4", -9.0), entry("</think>"), entry("4")) == (TokenLogprob("4", -0.5),)


def test_tokens_that_do_not_make_the_text_are_left_out() -> None:
    """A rating would be read from the wrong place."""
    assert read("43", entry("4"), entry("2")) == ()


def test_a_tokens_alternatives_are_those_beside_itself() -> None:
    """The server names the token itself among the likeliest; the second of that text is another token."""
    likeliest = [entry("4"), entry("5", -1.5), entry("4", -7.0)]
    assert read("4", entry("4", top_logprobs=likeliest)) == (TokenLogprob("4", -0.5, (("5", -1.5), ("4", -7.0))),)


@pytest.mark.parametrize("spelling", ["\ufffd", "bytes:\\xf0\\x9f"])
def test_a_character_of_several_tokens_is_read_from_their_bytes(spelling: str) -> None:
    """The tokens, joined, are the text."""
    read_out = read(
        "a🎲b", entry("a"), entry(spelling, raw=[240, 159]), entry("\ufffd", raw=[142, 178]), entry("b", raw=[98])
    )
    assert [one.token for one in read_out] == ["a", "", "🎲", "b"]


def test_a_character_that_never_ends_does_not_swallow_the_next() -> None:
    assert [one.token for one in read("\ufffdb", entry("\ufffd", raw=[240, 159]), entry("b"))] == ["", "\ufffdb"]


@pytest.mark.parametrize(
    "entries",
    [None, "x", [None], [{}], [entry("4", None)], [entry("4", True)], [entry("4", math.nan)], [entry("4", 3.0)],
     [{"token": 4, "logprob": -1}], [entry("4"), entry("x", "sure")]],
)  # fmt: skip
def test_probabilities_that_are_none_are_left_out_whole(entries: object) -> None:
    """Half of them would stand beside the wrong text."""
    assert token_logprobs(entries, "4", str) == ()


def test_a_certain_token_is_certain_and_an_impossible_one_impossible() -> None:
    """Rounding above zero is zero; minus infinity stays."""
    likeliest = [entry("x", -math.inf), entry("y", None), "z"]
    assert read("4", entry("4", 0.0000004, top_logprobs=likeliest)) == (TokenLogprob("4", 0.0, (("x", -math.inf),)),)
