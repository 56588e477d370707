"""Models in this process: the real llama_cpp package over the tiny GGUF file."""

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_integration.backends.gguf import Backend
from llm_integration.backends.wire.gguf_model import GgufModel, Stopped
from llm_integration.contracts import load_schema
from llm_integration.errors import BackendError, ContextExceeded, NotUsable, RequestRejected, TimedOut
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.llama.build import MODEL
from tests.llama.package import importable, why_not
from trading.clock import SystemClock

_WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
SCHEMA = load_schema()
LONG = 30_000


@pytest.fixture(scope="module", autouse=True)
def package() -> Iterator[None]:
    with importable():
        yield


@pytest_asyncio.fixture
async def model() -> AsyncIterator[Backend]:
    one = backend()
    yield one
    await one.close()


def backend(context_tokens: int | None = 16384) -> Backend:
    return Backend(BackendContext("gguf", SystemClock(), context_tokens=context_tokens))


def request(text: str = "Rate this.", model: str = str(MODEL), **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", text))
    return ChatRequest(messages, model, **{"timeout_s": 60.0, "max_tokens": 64, **fields})


async def failure(one: Backend, asked: ChatRequest) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await one.chat(asked)
    return caught.value


async def test_a_reply_has_its_exact_tokens_and_costs_nothing(model: Backend) -> None:
    """The prompt is counted as the chat template writes it, one token a character and mark of this model."""
    reply = await model.chat(request())
    whole = "<s>system\nYou rate.<e>\n<s>user\nRate this.<e>\n<s>assistant\n"
    assert reply.prompt_tokens == len(whole.replace("<s>", "s").replace("<e>", "e"))
    assert (reply.completion_tokens, reply.finish_reason) == (64, "length")
    assert len(reply.text) == 64
    assert (reply.cost_usd, reply.cost_source) == (Decimal(0), "free")
    assert reply.headers_at is not None
    assert reply.logprobs == ()


async def test_the_same_question_gives_the_same_reply_whatever_was_asked_between(model: Backend) -> None:
    """What an earlier prompt left in the model's memory changes nothing."""
    first = await model.chat(request("Rate one."))
    await model.chat(request("Rate one, and then quite another."))
    await model.chat(request("Rate"))
    again, once_more = await model.chat(request("Rate one.")), await model.chat(request("Rate one."))
    assert first.text == again.text == once_more.text


async def test_every_reply_fits_the_schema(model: Backend) -> None:
    """Ten questions give ten verdicts within the contract's bounds, those of whole numbers included."""
    asked = (request(f"Rate signal {n}.", schema=SCHEMA, max_tokens=2048) for n in range(10))
    verdicts = [json.loads((await model.chat(one)).text) for one in asked]
    for verdict in verdicts:
        assert set(verdict) == set(SCHEMA["required"])
        assert 1 <= verdict["rating"] <= 5 and 0 <= verdict["confidence_percent"] <= 100
        assert verdict["action"] in SCHEMA["properties"]["action"]["enum"]
        assert len(verdict["rationale"]) <= SCHEMA["properties"]["rationale"]["maxLength"]
    assert len({str(verdict) for verdict in verdicts}) > 1


async def test_a_json_object_can_be_asked_for_without_a_schema(model: Backend) -> None:
    """The reply begins as an object; at its end it is one."""
    replies = [await model.chat(request(f"Number {number}", json_object=True, max_tokens=2048)) for number in range(4)]
    assert all(reply.text.startswith("{") for reply in replies)
    ended = [reply.text for reply in replies if reply.finish_reason == "stop"]
    assert ended and all(isinstance(json.loads(text), dict) for text in ended)


async def test_a_schema_that_no_grammar_can_be_made_of_is_rejected(model: Backend) -> None:
    """The next request is answered all the same."""
    error = await failure(model, request(schema={"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}))
    assert type(error) is RequestRejected
    assert (await model.chat(request())).text


async def test_the_text_comes_piece_by_piece_in_the_loop(model: Backend) -> None:
    """The pieces are the reply, and are handed over in the loop's own thread."""
    pieces: list[str] = []
    threads = set()

    def take(piece: str) -> None:
        pieces.append(piece)
        threads.add(threading.current_thread())

    reply = await model.chat(request(on_delta=take))
    assert "".join(pieces) == reply.text and len(pieces) > 10
    assert threads == {threading.current_thread()}


async def test_what_the_receiver_of_the_text_raises_ends_the_call(model: Backend) -> None:
    """It is nobody else's error, and the model is free for the next."""

    def refuse(piece: str) -> None:
        raise ZeroDivisionError(piece)

    with pytest.raises(ZeroDivisionError):
        await model.chat(request(on_delta=refuse, max_tokens=LONG))
    assert (await model.chat(request())).text


async def test_probabilities_are_those_of_the_tokens(model: Backend) -> None:
    """At temperature 0 each token is the likeliest; the others come after it, sorted."""
    reply = await model.chat(request(top_logprobs=4))
    assert "".join(entry.token for entry in reply.logprobs) == reply.text
    for entry in reply.logprobs:
        shown = [entry.logprob, *(logprob for _, logprob in entry.alternatives)]
        assert shown == sorted(shown, reverse=True) and len(shown) == 4
        assert entry.token not in dict(entry.alternatives)
        assert sum(map(math.exp, shown)) <= 1 + 1e-9


async def test_the_probabilities_of_all_tokens_add_up_to_one(model: Backend) -> None:
    reply = await model.chat(request(top_logprobs=356, max_tokens=3))
    for entry in reply.logprobs:
        others = [logprob for _, logprob in entry.alternatives]
        assert len(others) == 355
        assert math.fsum(map(math.exp, [entry.logprob, *others])) == pytest.approx(1)


async def test_tokens_are_counted_as_the_model_counts_them(model: Backend) -> None:
    asked = request("How many?")
    assert await model.count_tokens(asked) == (await model.chat(asked)).prompt_tokens
    assert await model.count_tokens(request(model="/nowhere.gguf")) is None


async def test_a_prompt_that_is_too_long_is_told_of_with_both_counts() -> None:
    """Nothing is cut off in silence."""
    one = backend(512)
    error = await failure(one, request("x" * 600))
    assert type(error) is ContextExceeded and "tokens, and the context" in str(error) and " 512;" in str(error)
    full = await one.chat(request("x" * 400, max_tokens=1000))
    assert full.finish_reason == "length"
    assert (full.prompt_tokens or 0) + (full.completion_tokens or 0) == 512
    await one.close()


async def test_a_call_that_is_late_ends_its_generation(model: Backend) -> None:
    """After the time limit nothing is generated any more, and the next call is answered at once."""
    await model.chat(request())
    seen: list[str] = []
    error = await failure(model, request("Go on.", timeout_s=0.2, max_tokens=LONG, on_delta=seen.append))
    assert type(error) is TimedOut and "0.2 s" in str(error)
    count = len(seen)
    assert (await model.chat(request())).text
    assert len(seen) == count and model._files[str(MODEL)]._stop.is_set()


async def test_a_call_that_is_cancelled_ends_its_generation(model: Backend) -> None:
    """The model is free for the next call when the cancelled one has ended."""
    begun = asyncio.Event()
    asked = request(max_tokens=LONG, timeout_s=1000, on_delta=lambda piece: begun.set())
    call = asyncio.create_task(model.chat(asked))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await model.chat(request())).text


def test_a_long_prompt_can_be_given_up_while_it_is_read() -> None:
    """Before the first token, too."""
    one, stop = GgufModel(MODEL, 16384), threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        one.answer(request("x" * 10_000), stop, None, SystemClock())
    assert one._llama.n_tokens == 0
    one.close()


async def test_the_loop_goes_on_while_a_model_works(model: Backend) -> None:
    """Loading and generating happen in another thread."""
    ticks = 0
    call = asyncio.create_task(model.chat(request(max_tokens=2000)))
    while not call.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 100


async def test_calls_on_one_file_wait_for_each_other(model: Backend) -> None:
    """Several at once are all answered, each as alone."""
    alone = [(await model.chat(request(f"Rate {number}."))).text for number in range(4)]
    together = await asyncio.gather(*(model.chat(request(f"Rate {number}.")) for number in range(4)))
    assert [reply.text for reply in together] == alone


async def test_a_check_tells_the_context_and_loads_nothing(model: Backend) -> None:
    """Until it is asked for, a file costs no memory."""
    health = await model.check(str(MODEL))
    assert health.usable and "16384 tokens of context" in health.detail and "by the first call" in health.detail
    assert not model._files
    assert model.capabilities(str(MODEL)).context_tokens == 16384
    await model.chat(request())
    assert "is loaded, 16384" in (await model.check(str(MODEL))).detail


@pytest.mark.parametrize(("wanted", "given"), [(None, 8192), (1024, 1024), (100_000, 32768)])
async def test_the_context_is_what_was_asked_for_within_what_the_model_knows(wanted: int | None, given: int) -> None:
    """Unset it is bounded, as its memory grows with it; more than the model was trained with is not given."""
    one = backend(wanted)
    await one.chat(request(max_tokens=1))
    assert one.capabilities(str(MODEL)).context_tokens == given
    await one.close()


async def test_capabilities_and_price_say_what_is_so(model: Backend) -> None:
    can = model.capabilities(str(MODEL))
    assert (can.schema, can.json_object, can.streaming, can.logprobs, can.local) == (True, True, True, True, True)
    assert can.slots == 1 and can.context_tokens is None
    price = model.price(str(MODEL))
    assert price is not None and (price.input_usd, price.output_usd, price.source) == (0, 0, "free")
    assert Backend.API_KEY_ENV is None and not Backend.METERED


async def test_a_file_that_is_not_there_or_no_model_is_told_of(model: Backend, tmp_path: Path) -> None:
    """At the check and at the call, in the same words; what is mended is found."""
    path = tmp_path / "a.gguf"
    for content, said in (
        (None, "there is no file"),
        (b"PK12", "is no GGUF file"),
        (MODEL.read_bytes()[:5000], "damaged"),
    ):
        if content is not None:
            path.write_bytes(content)
        health, error = await model.check(str(path)), await failure(model, request(model=str(path)))
        assert not health.usable and said in health.detail
        assert type(error) is NotUsable and str(error) == health.detail
    path.write_bytes(MODEL.read_bytes())
    assert (await model.check(str(path))).usable
    assert (await model.chat(request(model=str(path)))).text


async def test_without_the_package_the_extra_is_named(model: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command to install it is there to be copied."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    health = await model.check(str(MODEL))
    assert not health.usable and 'pip install "tradent[gguf]"' in health.detail
    assert type(await failure(model, request())) is NotUsable


async def test_closing_ends_what_is_under_way_and_frees_the_model(model: Backend) -> None:
    """The memory is given back, and a call that waited is told so."""
    begun = asyncio.Event()
    asked = request(max_tokens=LONG, timeout_s=1000, on_delta=lambda piece: begun.set())
    call, waiting = asyncio.create_task(model.chat(asked)), None
    await begun.wait()
    waiting = asyncio.create_task(model.chat(request()))
    await asyncio.sleep(0)
    loaded = await asyncio.shield(model._files[str(MODEL)]._loading)  # type: ignore[arg-type]
    await model.close()
    for ended in (call, waiting):
        with pytest.raises(NotUsable, match="closed"):
            await ended
    assert loaded._llama._model.model is None
    await model.close()


async def test_other_output_is_left_alone_while_a_model_loads(model: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package would point the whole process's output nowhere; log lines of that moment would be lost."""
    await model.check(str(MODEL))
    import llama_cpp

    seen: list[object] = []
    load = llama_cpp.llama_model_load_from_file

    def watch(*arguments: Any) -> Any:
        seen.append((sys.stderr, os.fstat(2).st_ino))
        return load(*arguments)

    monkeypatch.setattr(llama_cpp, "llama_model_load_from_file", watch)
    monkeypatch.setattr(llama_cpp.llama_cpp, "llama_model_load_from_file", watch)
    before = sys.stderr, os.fstat(2).st_ino
    await model.chat(request(max_tokens=1))
    assert len(seen) == 2 and set(seen) == {before}


async def test_a_template_that_takes_no_system_message_is_given_it_by_the_user(model: Backend) -> None:
    """Some makers' templates refuse the role."""
    await model.chat(request(max_tokens=1))
    loaded = await asyncio.shield(model._files[str(MODEL)]._loading)  # type: ignore[arg-type]
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template = refusing + "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}"
    import llama_cpp.llama_chat_format as formats

    loaded._formatter = formats.Jinja2ChatFormatter(template=template, bos_token="", eos_token="")
    reply = await model.chat(request("Hi", max_tokens=1))
    assert reply.prompt_tokens == len("user:You rate.\n\nHi;")
    broken = "{{ raise_exception('nobody may speak') }}"
    loaded._formatter = formats.Jinja2ChatFormatter(template=broken, bos_token="", eos_token="")
    error = await failure(model, request("Hi"))
    assert type(error) is RequestRejected and "nobody may speak" in str(error)


def test_nothing_of_a_load_is_printed() -> None:
    """A daemon's output is its own: a fresh process that checks, loads and asks prints its own line alone."""
    script = (
        "import asyncio, sys\n"
        "from tests.integration.test_gguf_backend import backend, importable, request\n"
        "async def main():\n"
        "    one = backend()\n"
        "    assert (await one.check(sys.argv[1])).usable\n"
        "    await one.chat(request(model=sys.argv[1]))\n"
        "    await one.close()\n"
        "with importable():\n"
        "    asyncio.run(main())\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", script, str(MODEL)]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=180, cwd=Path(__file__).parents[2], check=False
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)


def test_a_program_that_never_closed_its_client_ends_without_complaint() -> None:
    script = (
        "from llm_integration import get_llm_client\n"
        "import sys\n"
        "client = get_llm_client(backend='local_llama', model_path=sys.argv[1], max_tokens=16)\n"
        "print(bool(client.generate('Up or down?').text))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(MODEL)],
        capture_output=True, text=True, timeout=180, cwd=Path(__file__).parents[2], check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (ended.stdout, ended.stderr, ended.returncode) == ("True\n", "", 0)


async def test_what_two_prompts_begin_with_is_read_once(model: Backend) -> None:
    """The same instructions before each question cost their time only the first time."""
    read: list[int] = []
    instructions = "x" * 3000
    await model.chat(request(f"{instructions} first", max_tokens=1))
    loaded = await asyncio.shield(model._files[str(MODEL)]._loading)  # type: ignore[arg-type]
    evaluate = loaded._llama.eval

    def count(tokens: list[int]) -> None:
        read.append(len(tokens))
        evaluate(tokens)

    loaded._llama.eval = count
    reply = await model.chat(request(f"{instructions} other", max_tokens=1))
    assert (reply.prompt_tokens or 0) > 3000 and sum(read) < 100
