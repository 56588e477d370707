"""What a server offers, costs and enforces: asked for, learned at a check or from a refusal, and told truly."""

from decimal import Decimal
from typing import Any

import pytest

from llm_integration.backends.wire import Wire
from llm_integration.calling.retry import Retry
from llm_integration.contracts import load_schema
from llm_integration.errors import BackendError, ModelNotFound, ParameterRefused, ServerFailed
from llm_integration.ports import Capabilities, ChatReply, ChatRequest, Price, TokenLogprob
from tests.contract.test_http_backends import CHOICES, SERVERS, backend, request
from tests.dialects import LlamaCppPythonServer, OpenAIServer
from tests.fake_clock import Rushing
from tests.servers import Answer, ChatServer, Json, LlamaServer, OpenRouterServer, completion, streamed

SCHEMA = load_schema()
LOGPROBS = {
    "content": [
        {"token": "4", "logprob": -0.1, "bytes": [52], "top_logprobs": [
            {"token": "4", "logprob": -0.1, "bytes": [52]}, {"token": "5", "logprob": -2.5, "bytes": [53]}]},
        {"token": "\ufffd", "logprob": -0.2, "bytes": [240, 159], "top_logprobs": []},
        {"token": "\ufffd", "logprob": -0.3, "bytes": [142, 178], "top_logprobs": []},
    ]
}  # fmt: skip
CHOICE = {"finish_reason": "stop", "message": {"content": "4🎲"}, "logprobs": LOGPROBS}
READ = (TokenLogprob("4", -0.1, (("5", -2.5),)), TokenLogprob("", -0.2), TokenLogprob("🎲", -0.3))


def entry(**fields: Any) -> Json:
    """A model as OpenRouter lists it."""
    known = {
        "id": "test/model",
        "context_length": 32_000,
        "top_provider": {"context_length": 16_000},
        "pricing": {"prompt": "0.0000003", "completion": "0.0000025", "request": "0.001", "image": "0.01"},
        "supported_parameters": ["temperature", "max_tokens", "response_format", "structured_outputs"],
    }
    return {**known, **fields}


async def asked(
    server: ChatServer, name: str, *requests: ChatRequest, check: bool = True, model: str = "test/model"
) -> tuple[list[ChatReply], Any, list[Json]]:
    """The replies, the backend, and the chats that were sent, where it was checked before."""
    async with server:
        one = backend(name, server.base_url)
        if check:
            assert (await one.check(model)).usable
        before = len(server.chats)
        tried = Retry(one, Rushing())
        replies = [await tried.chat(what) for what in requests]
        await one.close()
        return replies, one, [sent.json for sent in server.chats][before:]


@CHOICES
@pytest.mark.parametrize("whole", [True, False])
async def test_the_probabilities_of_a_replys_tokens_are_read(name: str, whole: bool) -> None:
    """Streamed or not; parts of a character are put together from their bytes."""
    body = completion("4🎲", choices=[CHOICE])
    step = Answer(body) if whole else streamed(body)
    async with SERVERS[name]() as server:
        server.script = [step]
        one = backend(name, server.base_url)
        fields = {} if whole else {"on_delta": lambda _: None}
        reply = await one.chat(request(top_logprobs=2, **fields))
        await one.close()
    assert (reply.text, reply.logprobs) == ("4🎲", READ)


@pytest.mark.parametrize(
    ("name", "server", "sent"),
    [
        ("llama_cpp", LlamaServer(), True),
        ("openai", OpenAIServer(), True),
        ("openrouter", OpenRouterServer(models=[entry(supported_parameters=["logprobs", "top_logprobs"])]), True),
        ("openrouter", OpenRouterServer(models=[entry()]), False),
        ("openrouter", OpenRouterServer(models=[entry(supported_parameters=None)]), False),
    ],
)
async def test_probabilities_are_asked_for_where_they_are_offered(name: str, server: ChatServer, sent: bool) -> None:
    """And only where somebody wants them."""
    _, _, (wanted, unwanted) = await asked(server, name, request(top_logprobs=5), request())
    assert (wanted.get("logprobs"), wanted.get("top_logprobs")) == ((True, 5) if sent else (None, None))
    assert "logprobs" not in unwanted and "top_logprobs" not in unwanted


async def test_before_a_check_openrouter_is_not_asked_for_probabilities() -> None:
    """Nobody knows yet whether the model has any."""
    _, one, (sent,) = await asked(OpenRouterServer(), "openrouter", request(top_logprobs=5), check=False)
    assert "logprobs" not in sent
    assert one.capabilities("test/model") == Capabilities(streaming=True)


@pytest.mark.parametrize("status", [400, 500])
async def test_a_model_without_probabilities_is_asked_without_them_from_then_on(status: int) -> None:
    """A refusal costs one more try, once."""
    refusal = Answer({"error": {"message": "logprobs is not supported with this model"}}, status=status)
    server = OpenAIServer([refusal])
    wanted = request(top_logprobs=5)
    _, one, sent = await asked(server, "openai", wanted, wanted, check=False)
    assert ["logprobs" in body for body in sent] == [True, False, False]
    assert one.capabilities("test/model").logprobs is False
    assert one.capabilities("other").logprobs is None


@CHOICES
async def test_a_json_object_is_asked_for_where_there_is_no_schema(name: str) -> None:
    """A schema says more, so it goes first."""
    async with SERVERS[name]() as server:
        one = backend(name, server.base_url)
        await one.chat(request(json_object=True))
        await one.chat(request(json_object=True, schema=SCHEMA))
        await one.chat(request())
        await one.close()
        forms = [sent.json.get("response_format", {}).get("type") for sent in server.chats]
    assert forms == ["json_object", "json_schema", None]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Capabilities(schema=True, json_object=True, logprobs=False, streaming=True, context_tokens=16_000)),
        ({"supported_parameters": ["top_logprobs"], "top_provider": {"context_length": None}},
         Capabilities(schema=False, json_object=False, logprobs=True, streaming=True, context_tokens=32_000)),
        ({"supported_parameters": None, "context_length": "many", "top_provider": None}, Capabilities(streaming=True)),
        ({"id": "another"}, Capabilities(streaming=True)),
    ],
)  # fmt: skip
async def test_what_a_model_offers_is_what_openrouter_lists(fields: Json, expected: Capabilities) -> None:
    """Unknown is None."""
    listed = [entry(**fields), entry(id="test/other")]
    _, one, _ = await asked(OpenRouterServer(models=listed), "openrouter", model="test/other")
    assert one.capabilities("test/model") == expected


@pytest.mark.parametrize(
    ("model", "fields", "expected"),
    [
        ("test/model", {}, ("0.0000003", "0.0000025", "0.001")),
        ("test/model:thinking", {}, ("0.0000003", "0.0000025", "0.001")),
        ("test/model", {"pricing": {"prompt": "0", "completion": "0"}}, ("0", "0", "0")),
        ("~test/model-latest", {"id": "~test/model-latest"}, ("0.0000003", "0.0000025", "0.001")),
        ("~test/model-latest", {}, None),
        ("test/model:nitro", {}, None),
        ("test/model", {"pricing": {"prompt": "-1", "completion": "-1"}}, None),
        ("test/model", {"pricing": {"prompt": "0.1"}}, None),
        ("test/model", {"pricing": {"prompt": "0.1", "completion": "free", "request": "0"}}, None),
        ("test/model", {"pricing": {"prompt": "0.1", "completion": "0.1", "request": None}}, None),
        ("test/model", {"pricing": None}, None),
        ("test/model", {"id": "another"}, None),
    ],
)  # fmt: skip
async def test_a_models_price_is_what_openrouter_lists(
    model: str, fields: Json, expected: tuple[str, str, str] | None
) -> None:
    """USD per token and request, to the last digit; what is not one known price is None."""
    listed = [entry(**fields), entry(id="test/other")]
    server = OpenRouterServer(models=listed)
    _, one, _ = await asked(server, "openrouter", model="test/other")
    assert one.price(model) == (None if expected is None else Price(*map(Decimal, expected), "openrouter"))
    assert backend("openrouter", server.base_url).price("test/model") is None


async def test_a_model_listed_without_schemas_is_not_asked_by_schema() -> None:
    """With one, no provider would be found; a JSON object is asked for, or nothing, as the list says."""
    for parameters, form in ((["response_format", "temperature"], {"type": "json_object"}), (["max_tokens"], None)):
        server = OpenRouterServer(models=[entry(supported_parameters=parameters)])
        _, _, (sent,) = await asked(server, "openrouter", request(schema=SCHEMA))
        assert sent.get("response_format") == form
        assert ("provider" in sent) is (form is not None)
        assert ("temperature" in sent) is ("temperature" in parameters)


NOBODY = Answer(
    {"error": {"code": 404, "message": "No endpoints found that can handle the requested parameters."}}, 404
)


async def test_where_no_provider_takes_all_parameters_they_are_left_out_one_by_one() -> None:
    """It is no word about the model; what is left out is told by what it offers."""
    server = OpenRouterServer([NOBODY, NOBODY])
    (reply,), one, sent = await asked(server, "openrouter", request(schema=SCHEMA), check=False)
    assert reply.text
    assert ["temperature" in body for body in sent] == [True, False, False]
    assert [body["response_format"]["type"] for body in sent] == ["json_schema", "json_schema", "json_object"]
    assert one.capabilities("test/model").schema is False


async def test_what_a_model_is_listed_with_is_not_left_out_on_suspicion() -> None:
    """The temperature stays where the list has it."""
    server = OpenRouterServer([NOBODY], models=[entry()])
    _, _, sent = await asked(server, "openrouter", request(schema=SCHEMA))
    assert ["temperature" in body for body in sent] == [True, True]
    assert [body["response_format"]["type"] for body in sent] == ["json_schema", "json_object"]


async def test_a_model_without_endpoints_is_gone() -> None:
    """Without such words it is the model that is not there."""
    async with OpenRouterServer([Answer({"error": {"code": 404, "message": "No endpoints found for x/y."}}, 404)]) as s:
        one = backend("openrouter", s.base_url)
        with pytest.raises(ModelNotFound):
            await one.chat(request(schema=SCHEMA))
        await one.close()


async def test_a_cost_that_the_server_names_is_reported() -> None:
    """None where it names none: it is not made up here."""
    free = completion("x", usage={"prompt_tokens": 1, "completion_tokens": 1})
    server = OpenRouterServer([Answer(completion("x")), Answer(free)])
    (paid, unknown), _, _ = await asked(server, "openrouter", request(), request(), check=False)
    assert (paid.cost_usd, paid.cost_source) == (Decimal("0.000125"), "reported")
    assert (unknown.cost_usd, unknown.cost_source) == (None, None)


async def test_llama_tells_its_slots_and_its_context_once_it_was_asked() -> None:
    """Before, both are unknown."""
    async with LlamaServer(slots=3) as server:
        one = backend("llama_cpp", server.base_url)
        unknown = one.capabilities("local")
        await one.check("local")
        await one.close()
    assert unknown == Capabilities(json_object=True, streaming=True, logprobs=True, local=True)
    assert one.capabilities("local") == Capabilities(
        schema=True, json_object=True, streaming=True, logprobs=True, local=True, context_tokens=8192, slots=3
    )


async def test_llama_counts_the_tokens_of_a_prompt() -> None:
    """By the server's own template and vocabulary; None where it has no such answer, or none at all."""
    async with LlamaServer() as server:
        one = backend("llama_cpp", server.base_url)
        assert await one.count_tokens(request()) == len("<system>You rate.<user>Rate this.")
        template, tokenize = (sent.json for sent in list(server.requests)[-2:])
        assert template["chat_template_kwargs"] == {"enable_thinking": False}
        assert (tokenize["add_special"], tokenize["parse_special"]) == (True, True)
        server.aside = lambda path, body: Answer({"error": "no"}, 404)  # type: ignore[method-assign]
        assert await one.count_tokens(request()) is None
        await one.close()
    assert await backend("llama_cpp", "http://127.0.0.1:1").count_tokens(request()) is None


class Enforcing(OpenAIServer):
    """A server of one's own that keeps to schemas, as vLLM does."""

    def __init__(self) -> None:
        super().__init__()
        self.models = Answer({"data": [{"id": "test/model", "owned_by": "vllm", "max_model_len": 4096}]})
        self.default = LlamaServer()._rate


async def test_a_server_of_ones_own_is_asked_once_whether_it_keeps_to_schemas() -> None:
    """The check says what was found, and so do its capabilities."""
    async with Enforcing() as server:
        one = backend("openai", server.base_url)
        assert one.capabilities("test/model").schema is None
        first, again = await one.check("test/model"), await one.check("test/model")
        await one.close()
        assert len(server.chats) == 1
    assert first == again and "available" in first.detail and "schema enforced" in first.detail
    assert one.capabilities("test/model") == Capabilities(
        schema=True, json_object=True, streaming=True, local=True, context_tokens=4096
    )


async def test_a_server_of_ones_own_that_ignores_schemas_is_found_out() -> None:
    """In both forms; the usual one is still sent, as it does no harm."""
    server = OpenAIServer()
    _, one, (sent,) = await asked(server, "openai", request(schema=SCHEMA))
    assert one.capabilities("test/model").schema is False
    assert sent["response_format"]["type"] == "json_schema"
    assert "not enforced" in (await checked_again(server, one)).detail


async def checked_again(server: ChatServer, one: Any) -> Any:
    async with server:
        return await one.check("test/model")


async def test_a_server_of_others_is_not_asked_about_schemas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question there costs money and quota; what it enforces stays unknown."""
    async with Enforcing() as server:
        monkeypatch.setattr(Wire, "local", False)
        elsewhere = backend("openai", server.base_url)
        assert (await elsewhere.check("test/model")).usable and not server.chats
        await elsewhere.close()
    monkeypatch.undo()
    theirs = backend("openai", "https://api.example.com/v1")
    assert not theirs._wire.local and not theirs.capabilities("m").local
    for own in ("http://localhost:1/v1", "http://10.1.2.3", "http://gpu:8000", "http://[::1]:9", "http://box.local"):
        assert backend("openai", own)._wire.local


async def test_a_check_that_meets_a_failing_server_says_so_and_asks_anew() -> None:
    """A failure is no answer to the question about schemas."""
    async with Enforcing() as server:
        one = backend("openai", server.base_url)
        server.script = [Answer("", 503)]
        failing = await one.check("test/model")
        assert len(server.chats) == 1
        server.script = [Answer("oops", 500)]
        broken = await one.check("test/model")
        whole = await one.check("test/model")
        await one.chat(request(schema=SCHEMA))
        await one.close()
        assert server.chats[-1].json["response_format"]["type"] == "json_schema"
    assert not failing.usable and "503" in failing.detail
    assert not broken.usable and "500" in broken.detail
    assert whole.usable and "schema enforced" in whole.detail


@pytest.mark.parametrize("owner", ["me", "someone"])
async def test_a_check_finds_out_llama_cpp_pythons_server(owner: str) -> None:
    """By its list of models, or by what it answers to the usual form; a schema then goes out in its own."""
    server = LlamaCppPythonServer(owner=owner)
    (reply,), one, (sent,) = await asked(server, "openai", request(schema=SCHEMA))
    assert one.capabilities("test/model").schema is True
    assert sent["response_format"]["type"] == "json_object"
    assert sent["response_format"]["schema"]["required"] == SCHEMA["required"]
    assert '"rating": 4' in reply.text
    kinds = [chat.json["response_format"]["type"] for chat in server.chats]
    assert kinds == (["json_object"] * 2 if owner == "me" else ["json_schema", "json_object", "json_object"])


async def test_without_a_check_llama_cpp_pythons_server_is_found_out_by_its_first_refusal() -> None:
    """The 500 that names the form is a refusal, tried again in the other form, which is used from then on."""
    server = LlamaCppPythonServer()
    wanted = request(schema=SCHEMA)
    replies, _, sent = await asked(server, "openai", wanted, wanted, check=False)
    assert all('"rating": 4' in reply.text for reply in replies)
    kinds = [body["response_format"]["type"] for body in sent]
    assert kinds == ["json_schema", "json_object", "json_object"]


async def test_a_refusal_in_that_dialect_is_told_from_a_failure() -> None:
    """A 500 that names nothing that was sent is the server's failure."""
    refusing = LlamaCppPythonServer()
    async with refusing:
        one = backend("openai", refusing.base_url)
        refusing.script = [Answer({"error": {"message": "llama_decode returned -1"}}, 500)]
        caught: list[type[BackendError]] = []
        for _ in range(2):
            try:
                await one.chat(request(schema=SCHEMA))
            except BackendError as error:
                caught.append(type(error))
        await one.close()
    assert caught == [ServerFailed, ParameterRefused]


async def test_that_server_without_probabilities_is_asked_without_them() -> None:
    """Its 500 says why; streams come as from any other."""
    server = LlamaCppPythonServer(probabilities=False)
    deltas: list[str] = []
    wanted = request(schema=SCHEMA, top_logprobs=3, on_delta=deltas.append)
    (reply,), one, _ = await asked(server, "openai", wanted)
    assert reply.text == "".join(deltas) and '"rating": 4' in reply.text
    assert one.capabilities("test/model").logprobs is False


async def test_a_server_that_takes_no_stream_options_is_asked_without() -> None:
    """Then the stream has no usage, and all else is the same."""
    refusal = Answer({"error": {"message": "Unrecognized request argument supplied: stream_options"}}, 400)
    wanted = request(on_delta=lambda _: None)
    (reply,), _, sent = await asked(OpenAIServer([refusal]), "openai", wanted, check=False)
    assert reply.text
    assert ["stream_options" in body for body in sent] == [True, False]
