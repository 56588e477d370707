"""What each dialect has of its own: how it is asked, its failures in its own words, what its check finds."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from llm_integration.backends import backend_class
from llm_integration.calling.retry import Retry
from llm_integration.calling_config import split_model
from llm_integration.config import LLMConfig
from llm_integration.contracts import load_schema
from llm_integration.errors import (
    BackendError,
    BadReply,
    ContextExceeded,
    ModelNotFound,
    NotUsable,
    ParameterRefused,
    PaymentRequired,
    RateLimited,
    RequestRejected,
    ServerFailed,
    Unauthorized,
)
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest, Health
from tests.dialects import (
    DIALECTS,
    AnthropicServer,
    BedrockServer,
    OllamaServer,
    OpenAIServer,
    anthropic_reply,
    bedrock_reply,
    ollama_reply,
)
from tests.fake_clock import FakeClock
from tests.servers import Answer, ChatServer, Request

KEY = "sk-0123456789abcdef"
NOW = FakeClock().now()
SCHEMA = load_schema()


def request(model: str = "test/model", **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", "Rate this."))
    return ChatRequest(messages, model, **{"timeout_s": 5.0, "max_tokens": 77, "temperature": 0.5, **fields})


def backend(name: str, base_url: str | None, key: str | None = KEY, **fields: Any) -> Any:
    return backend_class(name)(BackendContext(name, FakeClock(), base_url, key, **fields))


async def asked(name: str, server: ChatServer, what: ChatRequest) -> Request:
    """The request as it arrived, where it was answered as scripted."""
    async with server:
        one = backend(name, server.base_url)
        await one.chat(what)
        await one.close()
    return server.chats[-1]


async def failed(name: str, answer: Answer, what: ChatRequest | None = None) -> BackendError:
    async with DIALECTS[name].server() as server:
        server.script = [answer]
        one = backend(name, server.base_url)
        with pytest.raises(BackendError) as caught:
            await one.chat(what or request())
        await one.close()
    return caught.value


async def checked(name: str, server: ChatServer, model: str, key: str | None = KEY, **fields: Any) -> Health:
    async with server:
        one = backend(name, server.base_url, key, **fields)
        health = await one.check(model)
        await one.close()
    assert isinstance(health, Health)
    return health


def anthropic_error(kind: str, message: str, status: int, **headers: str) -> Answer:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return Answer(body, status, headers)


def reset(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("name", "answer", "expected", "retry_after_s"),
    [
        ("anthropic", anthropic_error("overloaded_error", "Overloaded", 529), ServerFailed, None),
        ("anthropic", anthropic_error("overloaded_error", "Overloaded", 200), ServerFailed, None),
        ("anthropic", anthropic_error("rate_limit_error", "slow", 200), RateLimited, None),
        ("anthropic", anthropic_error("authentication_error", "invalid x-api-key", 200), Unauthorized, None),
        ("anthropic", anthropic_error("permission_error", "no", 200), Unauthorized, None),
        ("anthropic", anthropic_error("not_found_error", "model: test/model", 404), ModelNotFound, None),
        ("anthropic", anthropic_error("request_too_large", "too many bytes", 413), RequestRejected, None),
        ("anthropic", anthropic_error("invalid_request_error", "prompt is too long: 9 tokens > 5 maximum", 400),
         ContextExceeded, None),
        ("anthropic", anthropic_error("invalid_request_error", "Your credit balance is too low", 400),
         PaymentRequired, None),
        ("anthropic", anthropic_error("rate_limit_error", "slow", 429, **{"retry-after": "12"}), RateLimited, 12),
        ("anthropic", anthropic_error("rate_limit_error", "slow", 429, **{
            "anthropic-ratelimit-requests-remaining": "3", "anthropic-ratelimit-requests-reset": reset(50),
            "anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": reset(30),
            "anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": reset(20),
            "Date": "Mon, 05 Jan 2026 09:00:00 GMT",
        }), RateLimited, 30),
        ("anthropic", anthropic_error("rate_limit_error", "slow", 429, **{
            "anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "soon",
        }), RateLimited, None),
        ("anthropic", Answer({"type": "message", "content": None}), BadReply, None),
        ("bedrock", Answer({"message": "Too many requests, please wait."}, 429,
                           {"x-amzn-ErrorType": "ThrottlingException"}), RateLimited, None),
        ("bedrock", Answer({"Message": "Authentication failed"}, 403), Unauthorized, None),
        ("bedrock", Answer({"message": "The provided model identifier is invalid."}, 400), ModelNotFound, None),
        ("bedrock", Answer({"message": "Input is too long for requested model."}, 400), ContextExceeded, None),
        ("bedrock", Answer({"message": "The model has failed"}, 424), ServerFailed, None),
        ("bedrock", Answer({"message": "Invocation with on-demand throughput isn't supported."}, 400),
         RequestRejected, None),
        ("bedrock", Answer({"output": {}}), BadReply, None),
        ("bedrock", Answer({"output": {"message": {"content": "text"}}}), BadReply, None),
        ("ollama", Answer({"error": "model 'test/model' not found"}, 404), ModelNotFound, None),
        ("ollama", Answer({"error": "server busy, please try again."}, 503), ServerFailed, None),
        ("ollama", Answer({"error": "model runner has unexpectedly stopped"}, 500), ServerFailed, None),
        ("ollama", Answer({"error": "the input length exceeds the context length"}, 400), ContextExceeded, None),
        ("ollama", Answer({"error": "it broke"}), ServerFailed, None),
        ("ollama", Answer(ollama_reply("hal", done=False)), BadReply, None),
        ("ollama", Answer({"done": True}), BadReply, None),
        ("openai", Answer({"object": "error", "message": "The model `x` does not exist.", "code": 404}, 404),
         ModelNotFound, None),
        ("openai", Answer({"error": "No models loaded"}, 400), RequestRejected, None),
    ],
)  # fmt: skip
async def test_a_failure_in_a_dialects_own_words_becomes_its_own_error(
    name: str, answer: Answer, expected: type[BackendError], retry_after_s: float | None
) -> None:
    error = await failed(name, answer)
    assert type(error) is expected, error
    assert error.retry_after_s == (None if retry_after_s is None else pytest.approx(retry_after_s))


async def test_openai_is_asked_by_schema_without_what_its_strict_mode_refuses() -> None:
    """Bounds of strings are taken out, bounds of numbers stay; a server of one's own gets max_tokens."""
    sent = await asked("openai", OpenAIServer(), request(schema=SCHEMA))
    assert sent.path == "/chat/completions"
    assert list(sent.json) == ["model", "temperature", "max_tokens", "response_format", "messages"]
    form = sent.json["response_format"]["json_schema"]
    assert form["strict"] is True and form["name"] == "rate_signal"
    assert "maxLength" not in str(form["schema"]) and form["schema"]["properties"]["rating"]["maximum"] == 5


async def test_openai_itself_is_asked_by_its_newer_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its own address the token limit has the name that all their models take, and an unlisted model is gone."""
    async with OpenAIServer() as server:
        monkeypatch.setattr("llm_integration.backends.openai._OWN_ADDRESS", server.base_url)
        theirs = backend("openai", None)
        await theirs.chat(request())
        listed, unlisted = await theirs.check("test/model"), await theirs.check("gone")
        await theirs.close()
    assert server.chats[0].json["max_completion_tokens"] == 77 and "max_tokens" not in server.chats[0].json
    assert listed.usable
    assert not unlisted.usable and "lists no model 'gone'" in unlisted.detail


async def test_bedrocks_reason_is_shown_however_it_is_spelt() -> None:
    """Some of its failures say Message, some message."""
    for name in ("message", "Message"):
        assert str(await failed("bedrock", Answer({name: "No."}, 403))) == "bedrock answered 403: No."


async def test_openai_without_a_key_is_asked_only_at_an_address_of_ones_own() -> None:
    """vLLM and LM Studio need no key; OpenAI itself does, and is not asked without."""
    async with OpenAIServer() as server:
        own = backend("openai", server.base_url, None)
        await own.chat(request())
        await own.close()
        assert "Authorization" not in server.chats[0].headers
    theirs = backend("openai", None, None, api_key_env="MY_KEY")
    with pytest.raises(Unauthorized, match="MY_KEY is not set"):
        await theirs.chat(request())
    assert not (await theirs.check("gpt")).usable


@pytest.mark.parametrize(
    ("name", "refusal", "without", "instead"),
    [
        ("openai", "Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature", None),
        ("openai", "Unsupported parameter: 'max_tokens' is not supported with this model. "
                   "Use 'max_completion_tokens' instead.", "max_tokens", "max_completion_tokens"),
        ("openai", "Invalid schema for response_format 'rate_signal'", "json_schema", None),
        ("openai", "This response_format type is unavailable now", "json_schema", None),
        ("anthropic", "`temperature` is deprecated for this model.", "temperature", None),
        ("anthropic", "output_config.format: Extra inputs are not permitted", "output_config", None),
        ("bedrock", "The model returned the following errors: `temperature` is deprecated for this model.",
         "temperature", None),
        ("bedrock", "The model returned the following errors: output_config.format: Extra inputs are not permitted",
         "outputConfig", None),
    ],
)  # fmt: skip
async def test_what_a_model_refuses_is_left_out_from_the_next_request_on(
    name: str, refusal: str, without: str, instead: str | None
) -> None:
    """The refusal is an error that is tried again, so that every request is counted; other models are not affected."""
    async with DIALECTS[name].server() as server:
        server.script = [Answer({"error": {"message": refusal}}, status=400)]
        one, clock = backend(name, server.base_url), FakeClock()
        tried = Retry(one, clock, first_wait_s=0, jitter_s=0)
        with pytest.raises(ParameterRefused, match="from now on"):
            await one.chat(request(schema=SCHEMA))
        await tried.chat(request(schema=SCHEMA))
        await tried.chat(request("other", schema=SCHEMA))
        await one.close()
    first, second, other = (orjson.dumps(sent.json).decode() for sent in server.chats)
    assert f'"{without}"' in first and f'"{without}"' in other
    assert f'"{without}"' not in second
    assert instead is None or f'"{instead}":77' in second
    assert len(server.chats) == 3


async def test_a_refusal_of_what_was_not_sent_stands() -> None:
    """A rejection that keeps coming after all was left out is a rejection, not an endless retry."""
    refusal = Answer({"error": {"message": "`temperature` is deprecated for this model."}}, status=400)
    async with AnthropicServer([refusal, refusal]) as server:
        one = backend("anthropic", server.base_url)
        with pytest.raises(ParameterRefused):
            await one.chat(request())
        with pytest.raises(RequestRejected):
            await one.chat(request())
        await one.close()


async def test_ollama_is_given_room_for_the_prompt_and_the_reply() -> None:
    """The context is a power of two that holds both, and never shrinks: a change would load the model anew."""
    async with OllamaServer() as server:
        one = backend("ollama", server.base_url, None)
        await one.chat(request("mistral:7b", schema=SCHEMA))
        long = ChatRequest((Message("user", "x" * 20_000),), "mistral:7b", max_tokens=1024)
        await one.chat(long)
        await one.chat(request("mistral:7b"))
        await one.chat(request("other"))
        await one.close()
    sizes = [sent.json["options"]["num_ctx"] for sent in server.chats]
    assert sizes == [4096, 16384, 16384, 4096]
    first = server.chats[0]
    assert (first.path, first.json["model"], first.json["stream"]) == ("/api/chat", "mistral:7b", False)
    assert first.json["format"] == SCHEMA
    assert first.json["options"] == {"temperature": 0.5, "num_predict": 77, "num_ctx": 4096}
    assert first.json["truncate"] is False


async def test_ollama_without_the_model_says_how_to_get_it() -> None:
    """Both the call and the check name the command."""
    error = await failed("ollama", Answer({"error": "model 'mistral:7b' not found"}, 404), request("mistral:7b"))
    assert "run `ollama pull mistral:7b`" in str(error)
    health = await checked("ollama", OllamaServer(models=["llama3:latest"]), "mistral:7b", None)
    assert not health.usable and "run `ollama pull mistral:7b`" in health.detail
    elsewhere = await failed("ollama", Answer("404 page not found", 404))
    assert "pull" not in str(elsewhere)


async def test_anthropic_is_asked_with_the_system_prompt_on_top() -> None:
    """The version goes out as a header, the schema without the bounds that the API refuses."""
    sent = await asked("anthropic", AnthropicServer(), request(schema=SCHEMA))
    assert sent.path == "/v1/messages"
    assert sent.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in sent.headers
    assert sent.json["system"] == "You rate."
    assert sent.json["messages"] == [{"role": "user", "content": "Rate this."}]
    form = sent.json["output_config"]["format"]
    assert form["type"] == "json_schema" and form["schema"]["required"] == SCHEMA["required"]
    assert not {"minimum", "maximum", "maxLength", "maxItems"} & set(str(form).replace("'", " ").split())


async def test_thoughts_are_no_part_of_the_reply() -> None:
    """Blocks that are no text are passed over."""
    thought = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}]
    async with AnthropicServer([Answer(anthropic_reply("", content=thought))]) as server:
        one = backend("anthropic", server.base_url)
        assert (await one.chat(request())).text == "4"
        await one.close()
    blocks = {"message": {"content": [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "5"}]}}
    async with BedrockServer([Answer(bedrock_reply("", output=blocks))]) as server:
        one = backend("bedrock", server.base_url)
        assert (await one.chat(request())).text == "5"
        await one.close()


@pytest.mark.parametrize(
    ("name", "fields"),
    [("anthropic", {"stop_reason": "model_context_window_exceeded"}),
     ("bedrock", {"stopReason": "model_context_window_exceeded"})],
)  # fmt: skip
async def test_a_context_that_is_full_ends_a_reply_as_its_length(name: str, fields: dict[str, str]) -> None:
    async with DIALECTS[name].server() as server:
        server.script = [Answer(DIALECTS[name].reply("half", **fields))]
        one = backend(name, server.base_url)
        assert (await one.chat(request())).finish_reason == "length"
        await one.close()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.x", "arn:aws:bedrock:us-east-1:1:inference-profile%2Fus.x"),
    ],
)
async def test_bedrock_is_asked_for_the_model_in_the_path(model: str, path: str) -> None:
    """Names go out as they are, slashes quoted."""
    sent = await asked("bedrock", BedrockServer(), request(model, schema=SCHEMA))
    assert sent.path == f"/model/{path}/converse"
    assert sent.json["inferenceConfig"] == {"maxTokens": 77, "temperature": 0.5}
    assert sent.json["system"] == [{"text": "You rate."}]
    assert sent.json["messages"] == [{"role": "user", "content": [{"text": "Rate this."}]}]
    structure = sent.json["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert orjson.loads(structure["schema"])["required"] == SCHEMA["required"]


async def test_bedrock_says_which_region_is_missing_and_takes_it_from_the_settings() -> None:
    """No region is guessed; a set one makes the address."""
    nowhere = backend("bedrock", None)
    with pytest.raises(NotUsable, match=r"llm\.backends\.bedrock\.region"):
        await nowhere.chat(request())
    assert "region" in (await nowhere.check("m")).detail
    placed = backend("bedrock", None, region="eu-central-1")
    assert placed._wire.address == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert placed._catalogue.address == "https://bedrock.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("ollama/mistral:7b", "mistral:7b"),
        ("openai/org/model-7b", "org/model-7b"),
        ("bedrock/anthropic.claude-3-haiku-20240307-v1:0", "anthropic.claude-3-haiku-20240307-v1:0"),
        ("bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/us.x",
         "arn:aws:bedrock:us-east-1:1:inference-profile/us.x"),
        ("cli/claude", "claude"),
    ],
)  # fmt: skip
def test_a_model_strings_rest_goes_on_the_wire_as_it_is(model: str, name: str) -> None:
    """Colons and slashes belong to the name."""
    config = LLMConfig(model=model)
    assert split_model(config.model)[1] == name


NO = {"message": "no"}


@pytest.mark.parametrize(
    ("name", "server", "usable", "said"),
    [
        ("openai", OpenAIServer(), True, "available"),
        ("openai", OpenAIServer(models=["a", "b"]), True, "does not list 'test/model'; it lists a, b"),
        ("ollama", OllamaServer(), True, "loaded on demand"),
        ("anthropic", AnthropicServer(), True, "available"),
        ("anthropic", AnthropicServer(model=Answer(NO, 404)), False, "no model 'test/model'"),
        ("anthropic", AnthropicServer(model=Answer(NO, 401)), False, "does not take the key"),
        ("anthropic", AnthropicServer(model=Answer(NO, 529)), False, "asked again later"),
        ("bedrock", BedrockServer(), True, "available"),
        ("bedrock", BedrockServer(model=Answer(NO, 404), profile=Answer({})), True, "available"),
        ("bedrock", BedrockServer(model=Answer(NO, 400)), False, "Model access"),
        ("bedrock", BedrockServer(model=Answer(NO, 403)), False, "does not take the key"),
        ("bedrock", BedrockServer(model=Answer({"message": "not authorized to perform: x"}, 403)), True, "not checked"),
        ("bedrock", BedrockServer(model=Answer(NO, 500)), False, "asked again later"),
    ],
)
async def test_a_check_tells_whether_key_and_model_can_be_used(
    name: str, server: ChatServer, usable: bool, said: str
) -> None:
    """What is wrong is found before a signal needs it, with what to do."""
    health = await checked(name, server, "test/model")
    assert (health.usable, said in health.detail) == (usable, True), health.detail


class Locked(ChatServer):
    """It takes no key."""

    def beside(self, path: str) -> Answer:
        return Answer({}) if path == "/health" else Answer(NO, status=401)


@pytest.mark.parametrize("name", ["openai", "llama_cpp", "ollama", "anthropic", "bedrock"])
async def test_a_key_that_is_refused_goes_by_the_name_it_was_looked_for_under(name: str) -> None:
    async with Locked() as server:
        one = backend(name, server.base_url, "sk-wrong", api_key_env="MY_KEY")
        health = await one.check("test/model")
        await one.close()
    assert not health.usable
    assert "set MY_KEY" in health.detail


@pytest.mark.parametrize("name", ["anthropic", "bedrock"])
async def test_without_a_key_the_network_is_not_touched(name: str) -> None:
    """The variable that was looked for is named."""
    async with DIALECTS[name].server() as server:
        one = backend(name, server.base_url, None, api_key_env="MY_KEY")
        with pytest.raises(Unauthorized, match="MY_KEY is not set"):
            await one.chat(request())
        assert "MY_KEY is not set" in (await one.check("m")).detail
        assert not server.requests
