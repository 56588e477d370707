"""No key, and no password in an address, is kept or shown, whatever a server sends back of them, and however."""

import json
import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llm_integration.audit_file import AuditFile
from llm_integration.backends import backend_class
from llm_integration.calling.compose import build
from llm_integration.config import LLMConfig
from llm_integration.errors import BackendError
from llm_integration.model import Call, Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.dialects import AnthropicServer, BedrockServer, OllamaServer, OpenAIServer
from tests.dialects_native import STREAMS, PullingServer, event, lines
from tests.fake_clock import FakeClock
from tests.servers import Answer, ChatServer, LlamaServer, OpenRouterServer, Step, Stream, events
from trading.clock import SystemClock

KEY = "sk-marker-0123456789abcdef"
PASSWORD = "marked/word-9876543210"
BASIC = b64encode(f"user:{PASSWORD}".encode()).decode()
SERVERS: dict[str, Callable[[], ChatServer]] = {
    "openrouter": OpenRouterServer,
    "openai": OpenAIServer,
    "llama_cpp": LlamaServer,
    "ollama": OllamaServer,
    "anthropic": AnthropicServer,
    "bedrock": BedrockServer,
}
EVERY = pytest.mark.parametrize("name", SERVERS)


def begun(name: str, *rest: str | bytes) -> Stream:
    """A stream that goes well at first."""
    stream = STREAMS[name]("It will be told.")
    return Stream([*stream.pieces[:4], *rest], content_type=stream.content_type)


def broken_event(name: str, text: str) -> str | bytes:
    """What is no JSON, in the midst of a stream."""
    if name == "bedrock":
        good = event("contentBlockDelta", {"delta": {"text": text}})
        return good[:-4] + b"oops"
    return f"{text}\n" if name == "ollama" else f"data: {text}\n\n"


def error_event(name: str, message: str) -> str | bytes:
    """An error in the midst of a stream."""
    if name == "bedrock":
        return event("modelStreamErrorException", {"message": message})
    error = {"type": "error", "error": {"message": message, "type": "odd", "code": 400}}
    return lines(error)[0] if name == "ollama" else events(error)[0]


def echoes(name: str, secret: str) -> list[Step]:
    """Ways to send a secret back, some where a message is cut so that only its beginning would be left."""
    return [
        Answer({"error": {"message": f"wrong: {secret}", "type": secret, "code": 401}}, 401),
        Answer({"error": {"message": f"{'x' * 385} {secret}", "metadata": {"raw": secret}}}, 400),
        Answer({"error": {"message": f"{'x' * 385} {secret}", "code": 502}}),
        Answer(f"{'x' * 105} {secret}"),
        Answer(f"{'x' * 390} {secret}", 500),
        Answer("elsewhere", 302, {"Location": f"http://127.0.0.1/{secret}"}),
        STREAMS[name](f"you sent {secret}, did you not?"),
        begun(name, broken_event(name, f"{'x' * 105} {secret}")),
        begun(name, broken_event(name, f'"{secret}"')),
        begun(name, error_event(name, f"{'x' * 385} {secret}")),
        begun(name, error_event(name, secret)),
    ]


async def everything_said(
    name: str, base_url: str, keys: dict[str, str | None], server: ChatServer, script: Sequence[Step], path: Path
) -> str:
    """All that is kept and shown of asking: records, replies, errors, deltas, how models stand, the audit file."""
    said: list[object] = []
    calls: list[Call] = []
    settings = {
        "model": f"{name}/test/model", "fallback_models": [], "max_retries": 1,
        "backends": {name: {"base_url": base_url}},
    }  # fmt: skip
    config = LLMConfig.model_validate(settings)
    for streamed in (False, True):
        for step in script:
            caller = build(config, SystemClock(), keys)
            deltas: list[str] = []
            request = ChatRequest(
                (Message("user", "Tell."),), "", timeout_s=5, record=calls.append,
                on_delta=deltas.append if streamed else None,
            )  # fmt: skip
            server.script = [step]
            try:
                said.append(await caller.backend.chat(request))
            except BackendError as error:
                said += [error, str(error), error.reply]
            said += ["".join(deltas), await caller.check(), caller.standing(), caller.metrics.summary()]
            await caller.close()
    file = AuditFile(path / "calls.jsonl")
    file.append(calls)
    file.close()
    return "\n".join([*map(repr, [*said, *calls]), (path / "calls.jsonl").read_text()])


@EVERY
async def test_a_key_that_comes_back_in_any_way_is_nowhere_kept(
    name: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Not whole, and not its beginning."""
    caplog.set_level(logging.DEBUG)
    async with SERVERS[name]() as server:
        said = await everything_said(name, server.base_url, {name: KEY}, server, echoes(name, KEY), tmp_path)
        assert any(KEY in json.dumps(dict(sent.headers)) for sent in server.chats)
    assert KEY[:8] not in said + caplog.text


@EVERY
@pytest.mark.parametrize("secret", [PASSWORD, BASIC], ids=["password", "header made of it"])
async def test_a_password_in_an_address_is_nowhere_kept(
    name: str, secret: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Whether the server can be asked with it or, having a key as well, cannot."""
    caplog.set_level(logging.DEBUG)
    async with SERVERS[name]() as server:
        address = server.base_url.replace("//", "//user:marked%2Fword-9876543210@")
        keys: dict[str, str | None] = {name: KEY} if name in ("openrouter", "anthropic", "bedrock") else {}
        said = await everything_said(name, address, keys, server, echoes(name, secret), tmp_path)
        sent = [request.headers.get("Authorization") for request in server.chats]
        assert all(header == f"Basic {BASIC}" for header in sent)
    for form in (PASSWORD, "marked%2F", BASIC[:8], "marked\\/"):
        assert form not in said + caplog.text, form


@pytest.mark.parametrize(
    "told",
    [{"error": f"not for {KEY}"}, f"{'x' * 105} {KEY}", {"status": KEY}, {"status": "pulling", "total": KEY}],
    ids=["error", "no JSON", "status", "size"],
)
async def test_what_ollama_says_of_fetching_a_model_never_shows_a_key(
    told: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the check's words nor in the log."""
    caplog.set_level(logging.DEBUG)
    begins = {"status": "pulling manifest"}
    async with PullingServer([Stream(lines(begins, told), content_type="application/x-ndjson")]) as server:
        asked = backend_class("ollama")(BackendContext("ollama", FakeClock(), server.base_url, KEY))
        health = await asked.check("absent")
        await asked.close()
    assert not health.usable
    assert KEY[:8] not in health.detail + caplog.text
