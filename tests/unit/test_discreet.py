"""What error messages may tell of a call whose texts are not to be kept."""

import pytest

from llm_integration.calling.discreet import Discreet, Redact, shares_words
from llm_integration.errors import BackendError, BadReply, PaymentRequired, RequestRejected
from llm_integration.model import Message
from llm_integration.ports import ChatRequest
from tests.scripted_model import ScriptedModel, raising

PROMPT = "Judge as the house of Quillon judges.\nNothing else."
REQUEST = ChatRequest((Message("system", PROMPT),), "m")


async def said(error: BackendError, redact: Redact) -> str:
    model = ScriptedModel()
    model.answer = raising(error)
    with pytest.raises(type(error)) as raised:
        await Discreet(model, redact).chat(REQUEST)
    assert raised.value is error
    return str(error)


@pytest.mark.parametrize("redact", ["messages", "everything"])
async def test_an_error_that_quotes_the_prompt_keeps_its_status_only(redact: Redact) -> None:
    echo = RequestRejected(f"cannot read {PROMPT!r}", status=400, reply="{}")
    told = await said(echo, redact)
    assert "Quillon" not in told
    assert "(400)" in told
    assert "llm.audit.redact" in told
    assert (echo.status, echo.reply) == (400, "{}")


@pytest.mark.parametrize("redact", ["messages", "everything"])
async def test_an_error_in_the_server_s_own_words_stays(redact: Redact) -> None:
    told = "openrouter answered 402: add credits to go on"
    assert await said(PaymentRequired(told, status=402, reply=told), redact) == told


async def test_what_came_in_place_of_a_reply_is_quoted_unless_everything_is_left_out() -> None:
    came = "Between us, Zanthar says so"
    quoted = f"the server answered 200, but it is not JSON: {came!r}"
    assert await said(BadReply(quoted, status=200, reply=came), "messages") == quoted
    assert "Zanthar" not in await said(BadReply(quoted, status=200, reply=came), "everything")


async def test_where_nothing_is_left_out_errors_stay_as_they_are() -> None:
    quoted = f"cannot read {PROMPT!r}"
    assert await said(RequestRejected(quoted, status=400), "nothing") == quoted


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("... AS the house-of \\u201cQuillon\\u201d", True),
        ("the house is on fire", False),
        ("nothing", False),
        ("", False),
    ],
)
def test_words_are_compared_however_they_are_written(text: str, shared: bool) -> None:
    assert shares_words(text, [PROMPT]) is shared


def test_a_prompt_of_few_words_is_found_whole() -> None:
    assert shares_words("bad input: Hello, there!", ["hello there"])
    assert not shares_words("hello", ["hello there", "  "])
