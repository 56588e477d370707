"""Token probabilities: the rating they expect, found with certainty or not at all."""

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.contracts import load_schema
from llm_integration.logprobs import rating_distribution
from llm_integration.ports import ChatReply, TokenLogprob


def verdict(rating: object = 4, **more: object) -> dict[str, object]:
    return {
        "regime": "ranging", "rationale": "rsi 28.5, 3 bars", "risks": ["a 4 % gap"], "rating": rating,
        "confidence_percent": 40, "action": "hold", **more,
    }  # fmt: skip


def certain(text: str) -> TokenLogprob:
    return TokenLogprob(text, 0.0)


def undecided(text: str, **masses: float) -> TokenLogprob:
    """A token with the probability of each text it might have been, itself among them."""
    logprobs = {name: math.log(mass) for name, mass in masses.items()}
    return TokenLogprob(text, logprobs[text], tuple(logprobs.items()))


def reply(*tokens: str | TokenLogprob, text: str | None = None) -> ChatReply:
    pieces = tuple(token if isinstance(token, TokenLogprob) else certain(token) for token in tokens)
    whole = "".join(piece.token for piece in pieces) if text is None else text
    return ChatReply(whole, "m", logprobs=pieces)


def around(token: TokenLogprob, before: str = '{"rating": ', after: str = ', "action": "hold"}') -> ChatReply:
    return reply(before, token, after)


def test_the_expected_rating_is_the_mean_of_those_the_model_nearly_gave() -> None:
    found = rating_distribution(around(undecided("4", **{"4": 0.5, "5": 0.25, "3": 0.25})))
    assert found is not None
    assert found.expected == pytest.approx(4.0)
    assert found.entropy_bits == pytest.approx(1.5)
    assert found.probabilities == pytest.approx({3: 0.25, 4: 0.5, 5: 0.25})
    assert found.stated == 4


def test_a_certain_rating_has_no_entropy() -> None:
    found = rating_distribution(around(certain("2")))
    assert found is not None
    assert (found.expected, found.entropy_bits) == (2.0, 0.0)


def test_what_is_no_rating_is_left_out_and_the_rest_scaled() -> None:
    """A tenth went to words and to ratings there are not."""
    masses = {"4": 0.6, "2": 0.3, "7": 0.04, "10": 0.03, "four": 0.02, "": 0.01}
    found = rating_distribution(around(undecided("4", **masses)))
    assert found is not None
    assert found.probabilities == pytest.approx({4: 2 / 3, 2: 1 / 3})


def test_a_token_may_hold_what_stands_beside_the_digit() -> None:
    """Some vocabularies spell a colon, a space, a quote or a comma and the digit in one."""
    for before, token, other, after in [
        ('{"rating"', ": 4", ": 2", ', "action": "hold"}'),
        ('{"rating":', " 4", " 2", "}"),
        ('{"rating": ', '"4"', '"2"', "}"),
        ('{"rating": ', "4,", "2,", ' "action": "hold"}'),
        ('{"rating":', "4}", "2}", ""),
    ]:
        found = rating_distribution(around(undecided(token, **{token: 0.5, other: 0.5}), before, after))
        assert found is not None, token
        assert found.expected == pytest.approx(3.0)


def test_alternatives_that_spell_one_rating_in_several_ways_add_up() -> None:
    found = rating_distribution(around(undecided("4", **{"4": 0.4, " 4": 0.1, "4,": 0.1, "1": 0.4})))
    assert found is not None
    assert found.probabilities == pytest.approx({4: 0.6, 1: 0.4})


def test_the_chosen_token_counts_once_whether_it_is_among_the_alternatives_or_not() -> None:
    beside = TokenLogprob("4", math.log(0.5), (("2", math.log(0.5)),))
    among = undecided("4", **{"4": 0.5, "2": 0.5})
    assert rating_distribution(around(beside)) == rating_distribution(around(among))


def test_ratings_that_hold_less_than_half_the_probability_say_nothing() -> None:
    token = undecided("4", **{"4": 0.3, "3": 0.15, '"': 0.55})
    assert rating_distribution(around(token)) is None
    assert rating_distribution(around(token), least_mass=0.4) is not None


@pytest.mark.parametrize("rating", ["4.5", "14", "0", "7", "-4", "null", '"high"', '"4/5"', "[4]", '{"value": 4}'])
def test_a_value_that_is_no_rating_has_no_distribution(rating: str) -> None:
    text = f'{{"rating": {rating}}}'
    assert rating_distribution(reply(*text)) is None


def test_a_digit_that_shares_its_token_with_more_than_punctuation_is_not_told_apart() -> None:
    assert rating_distribution(reply('{"rating', '": 4, "act', 'ion": "hold"}')) is None


def test_a_rating_stated_twice_is_not_told_apart() -> None:
    assert rating_distribution(reply(*'{"rating": 4, "rating": 4}')) is None
    assert rating_distribution(reply(*'{"rating": 4, "inner": {"rating": 2}}')) is None


def test_a_rating_in_words_is_none() -> None:
    """Only a field counts; a text that holds the like of one does not."""
    assert rating_distribution(reply(*json.dumps({"rationale": '"rating": 4'}))) is None
    assert rating_distribution(reply(*"HOLD | 60 | rating: 4")) is None


def test_each_of_several_verdicts_has_its_own() -> None:
    """By the number in its entry, wherever that stands."""
    entries = [verdict(3, signal=2), verdict(5, signal=1), verdict(1, signal=3)]
    several = reply(*json.dumps({"verdicts": entries}, indent=1))
    found = [rating_distribution(several, number) for number in (1, 2, 3, 4)]
    assert [one and one.expected for one in found] == [5.0, 3.0, 1.0, None]
    assert rating_distribution(several) is None


def test_two_entries_about_one_signal_are_not_told_apart() -> None:
    both = json.dumps({"verdicts": [verdict(3, signal=1), verdict(3, signal=1)]})
    assert rating_distribution(reply(*both), 1) is None


def test_a_fence_or_words_around_the_json_do_no_harm() -> None:
    found = rating_distribution(reply("Here:\n", "```json\n", *json.dumps(verdict(2)), "\n```"))
    assert found is not None
    assert found.expected == 2.0


def test_tokens_that_do_not_spell_the_text_say_nothing() -> None:
    assert rating_distribution(reply("{", '"rating": ', "4", " ", "}", text='{"rating": 4}')) is None
    assert (
        rating_distribution(reply('{"rating": "', "4", '", "a": "', "\ufffd", '"}', text='{"rating": 4, "a": "é"}'))
        is None
    )
    assert rating_distribution(reply(text='{"rating": 4}')) is None
    assert rating_distribution(reply('{"rating": ', "4", "}", text='{"rating": 3}')) is None


def test_tokens_around_the_text_do_no_harm_unless_they_spell_it_too() -> None:
    """As of thoughts, or a fence, that the server has cut off."""
    tokens = ("<think>2", "</think>", "```json\n", '{"rating": ', "4", "}", "\n```", "")
    found = rating_distribution(reply(*tokens, text='{"rating": 4}'))
    assert found is not None
    assert found.expected == 4.0
    twice = ('{"rating": ', undecided("4", **{"4": 0.6, "2": 0.4}), "}", '{"rating": ', "4", "}")
    assert rating_distribution(reply(*twice, text='{"rating": 4}')) is None


@pytest.mark.parametrize("logprob", [math.nan, 0.5, math.inf])
def test_what_is_no_probability_is_not_believed(logprob: float) -> None:
    assert rating_distribution(around(TokenLogprob("4", logprob))) is None


def test_a_token_that_cannot_be_is_no_harm() -> None:
    """Servers say -inf, or -9999, of what a grammar excludes."""
    token = TokenLogprob("4", 0.0, (("5", -math.inf), ("3", -9999.0)))
    found = rating_distribution(around(token))
    assert found is not None
    assert (found.expected, found.entropy_bits) == (4.0, 0.0)


def cut(text: str, places: Sequence[int]) -> list[str]:
    bounds = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(bounds)]


@given(
    st.integers(1, 5), st.text(max_size=20), st.lists(st.integers(0, 400), max_size=60), st.sampled_from([None, 1]),
    st.booleans(),
)  # fmt: skip
def test_however_the_text_is_cut_the_rating_is_found_or_nothing(
    rating: int, words: str, places: list[int], indent: int | None, escaped: bool
) -> None:
    """Never another digit of the text; and always found where the digit has a token of its own."""
    text = json.dumps(verdict(rating, rationale=words), indent=indent, ensure_ascii=escaped)
    digit = text.index('"rating": ') + len('"rating": ') if '"rating": ' not in json.dumps(words) else None
    if digit is not None:
        places = [*places, digit, digit + 1]
    found = rating_distribution(reply(*cut(text, places)))
    assert found is not None or digit is None
    assert found is None or found.probabilities == {rating: 1.0}


@given(st.lists(st.tuples(st.sampled_from([*"123456789", "10", " 4", "x", '"']), st.floats(-30, 0)), max_size=12))
def test_a_distribution_adds_up_and_lies_within_the_scale(alternatives: list[tuple[str, float]]) -> None:
    masses = dict(alternatives) | {"4": -0.5}
    total = math.log(math.fsum(math.exp(mass) for mass in masses.values()))
    scaled = tuple((text, mass - total) for text, mass in masses.items())
    found = rating_distribution(around(TokenLogprob("4", dict(scaled)["4"], scaled)), least_mass=0.0)
    assert found is not None
    assert math.fsum(found.probabilities.values()) == pytest.approx(1.0)
    assert 1 <= found.expected <= 5
    assert 0 <= found.entropy_bits <= math.log2(5) + 1e-9


@given(st.text(alphabet='{}[]:,"rating4 \\n', max_size=40), st.none() | st.integers(1, 3))
def test_no_text_does_harm(text: str, number: int | None) -> None:
    rating_distribution(reply(*text), number)


def test_the_contract_states_the_rating_as_expected_here() -> None:
    """A field named rating, an integer of one digit."""
    properties: dict[str, Any] = load_schema()["properties"]
    assert (properties["rating"]["type"], properties["rating"]["minimum"], properties["rating"]["maximum"]) == (
        "integer", 1, 5,
    )  # fmt: skip
