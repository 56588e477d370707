"""What a model costs, and what a call came to: told where it is known, and never made up."""

from dataclasses import replace
from decimal import Decimal

import pytest

from llm_integration.calling.audit import Audit
from llm_integration.calling.prices import FREE, Priced, is_free, reference_model
from llm_integration.calling_config import PriceSettings
from llm_integration.model import Call
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Health, Price
from tests.fake_clock import FakeClock

REQUEST = ChatRequest((), "a/b")
LISTED = Price(Decimal("0.000001"), Decimal("0.000004"), Decimal(0), "openrouter")
OWN = {"paid/a/b": PriceSettings(input_per_million=Decimal(2), output_per_million=Decimal(8), per_request=Decimal(1))}
REPLY = ChatReply("{}", "m", prompt_tokens=1000, completion_tokens=100)


class Told:
    """A backend that answers `reply` and says that its models cost `listed`."""

    name = "paid"

    def __init__(self, listed: Price | None = None, reply: ChatReply = REPLY, *, local: bool = False) -> None:
        self.listed = listed
        self.reply = reply
        self.local = local

    async def chat(self, request: ChatRequest) -> ChatReply:
        return self.reply

    async def check(self, model: str) -> Health:
        return Health(True, "told")

    def capabilities(self, model: str) -> Capabilities:
        return Capabilities(local=self.local)

    def price(self, model: str) -> Price | None:
        return self.listed

    async def close(self) -> None:
        pass


def test_the_settings_price_goes_before_the_backends() -> None:
    assert Priced(Told(LISTED), OWN).price("a/b") == Price(
        Decimal("0.000002"), Decimal("0.000008"), Decimal(1), "config"
    )
    assert Priced(Told(LISTED), OWN).price("other") == LISTED


def test_a_price_that_nobody_tells_is_not_known() -> None:
    assert Priced(Told(), {}).price("a/b") is None
    assert not is_free(None)


def test_a_negative_price_is_none() -> None:
    """A listing says -1 where the price depends on which model is taken: it must not earn anything."""
    assert Priced(Told(replace(LISTED, input_usd=Decimal(-1))), {}).price("a/b") is None


async def test_a_local_model_costs_nothing() -> None:
    free = Priced(Told(local=True), {})
    reply = await free.chat(REQUEST)
    assert is_free(free.price("a/b"))
    assert (reply.cost_usd, reply.cost_source) == (0, "free")


async def test_what_is_not_metered_costs_a_budget_nothing_and_nobody_knows_what_else() -> None:
    """A command line assistant may be paid for by the month, or by the call on somebody's account."""
    free = Priced(Told(), {}, metered=False)
    reply = await free.chat(REQUEST)
    assert is_free(free.price("a/b"))
    assert (reply.cost_usd, reply.cost_source) == (None, None)


async def test_a_local_model_costs_what_the_settings_say() -> None:
    reply = await Priced(Told(local=True), OWN, metered=False).chat(REQUEST)
    assert (reply.cost_usd, reply.cost_source) == (Decimal("1.0028"), "computed")


async def test_a_cost_that_is_not_reported_is_computed_from_tokens_and_price() -> None:
    reply = await Priced(Told(LISTED), {}).chat(REQUEST)
    assert (reply.cost_usd, reply.cost_source) == (Decimal("0.0014"), "computed")


async def test_a_reported_cost_goes_before_a_computed_one() -> None:
    reply = await Priced(Told(LISTED, replace(REPLY, cost_usd=Decimal("0.5"))), OWN).chat(REQUEST)
    assert (reply.cost_usd, reply.cost_source) == (Decimal("0.5"), "reported")


@pytest.mark.parametrize("tokens", [{"prompt_tokens": None}, {"completion_tokens": None}])
async def test_without_tokens_or_a_price_no_cost_is_made_up(tokens: dict[str, None]) -> None:
    assert (await Priced(Told(LISTED, replace(REPLY, **tokens)), {}).chat(REQUEST)).cost_usd is None
    assert (await Priced(Told(), {}).chat(REQUEST)).cost_usd is None


async def test_what_says_itself_that_it_is_free_stays_so() -> None:
    """A reply that was not paid for is not priced anew; a zero of a backend that is free by itself is called free."""
    kept = replace(REPLY, cost_usd=Decimal(0), cost_source="free")
    assert await Priced(Told(LISTED, kept), OWN).chat(REQUEST) == kept
    by_rule = await Priced(Told(FREE, replace(REPLY, cost_usd=Decimal(0))), {}).chat(REQUEST)
    assert by_rule.cost_source == "free"


async def test_the_audit_around_it_records_the_computed_cost() -> None:
    calls: list[Call] = []
    await Audit(Priced(Told(LISTED), {}), FakeClock()).chat(replace(REQUEST, record=calls.append))
    assert [(call.cost_usd, call.cost_source) for call in calls] == [(Decimal("0.0014"), "computed")]


def test_savings_are_told_against_the_first_paid_model_of_a_known_price() -> None:
    prices = {"rules/baseline": FREE, "b/b": LISTED, "c/c": LISTED}
    assert reference_model(["a/unknown", "rules/baseline", "b/b", "c/c"], prices) == "b/b"
    assert reference_model(["rules/baseline"], prices) is None
