"""Command line assistants, run for real: programs that answer, fail, hang, print without end, or leave children."""

import asyncio
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_integration.backends.cli import Backend
from llm_integration.calling.compose import build
from llm_integration.config import LLMConfig
from llm_integration.errors import (
    BackendError,
    BadReply,
    ContextExceeded,
    NotUsable,
    PaymentRequired,
    RateLimited,
    ServerFailed,
    TimedOut,
    Unauthorized,
)
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.fake_clock import FakeClock
from tests.waiting import until

KEY = "sk-0123456789abcdef"
LIMIT_S = 120.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="command line assistants are run on Linux and macOS only")


def program(folder: Path, script: str, first_line: str = "#!/bin/sh") -> str:
    """A shell script as a program of its own."""
    path = folder / "assistant"
    path.write_text(f"{first_line}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def backend(*command: str, **fields: Any) -> Backend:
    return Backend(BackendContext("cli", FakeClock(), commands={"it": command}, **fields))


def request(model: str = "it", **fields: Any) -> ChatRequest:
    messages = (Message("system", "You rate."), Message("user", "Rate this: $(echo x) `y`"))
    return ChatRequest(messages, model, **{"timeout_s": LIMIT_S, **fields})


async def failure(one: Backend, **fields: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await one.chat(request(**fields))
    return caught.value


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def gone(pid: int) -> None:
    await until(lambda: not runs(pid))


async def read_pid(path: Path) -> int:
    """The number a program wrote there, once it has."""
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(text(path))


def text(path: Path) -> str:
    return path.read_text()


def exists(path: str) -> bool:
    return Path(path).exists()


async def test_the_prompt_goes_in_and_what_is_printed_is_the_reply(tmp_path: Path) -> None:
    """System prompt and question on standard input, by no shell; tokens and cost are unknown."""
    reply = await backend(program(tmp_path, "cat")).chat(request())
    assert reply.text == "You rate.\n\nRate this: $(echo x) `y`"
    assert (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd) == (None, None, None)
    assert reply.headers_at == 0.0


async def test_a_second_question_is_read_with_the_first_reply_between_them(tmp_path: Path) -> None:
    """Where more than one question was asked, each turn says whose it is."""
    turns = (
        Message("system", "You rate."), Message("user", "Rate this."), Message("assistant", "six"),
        Message("user", "That is no rating."),
    )  # fmt: skip
    reply = await backend(program(tmp_path, "cat")).chat(ChatRequest(turns, "it", timeout_s=LIMIT_S))
    assert reply.text.split("\n\n") == [
        "You rate.", "The conversation so far:", "User:\nRate this.", "Assistant:\nsix", "User:\nThat is no rating.",
        "Reply to the user's last message as the assistant, with the reply alone.",
    ]  # fmt: skip


async def test_what_is_printed_is_handed_on_as_it_comes(tmp_path: Path) -> None:
    """A program that prints a first word and goes on when that has arrived ends: the word was not held back."""
    pieces: list[str] = []

    def take(piece: str) -> None:
        pieces.append(piece)
        (tmp_path / "arrived").touch()

    script = f"echo; printf 'one '; until [ -e {tmp_path}/arrived ]; do :; done; printf 'two \\n\\n'"
    reply = await backend(program(tmp_path, script)).chat(request(on_delta=take))
    assert reply.text == "one two" == "".join(pieces)
    assert pieces[0] == "one"


async def test_a_character_or_a_key_split_over_two_writes_is_handed_on_whole(tmp_path: Path) -> None:
    """Half a character is no text yet, and half a key may become one."""
    pieces: list[str] = []
    script = f"printf '\\303'; sleep 0.05; printf '\\274 {KEY[:9]}'; sleep 0.05; printf '{KEY[9:]}!'"
    one = backend(program(tmp_path, script), api_key=KEY, api_key_env="K")
    reply = await one.chat(request(on_delta=pieces.append))
    assert "".join(pieces) == reply.text == "ü [key removed]!"


async def test_what_the_receiver_of_the_text_raises_ends_the_program(tmp_path: Path) -> None:
    """It is nobody else's error, and nothing is left running."""

    def refuse(piece: str) -> None:
        raise ZeroDivisionError

    script = f"echo $$ > {tmp_path}/self; echo one; exec sleep 1000"
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(ZeroDivisionError):
            await backend(program(tmp_path, script)).chat(request(on_delta=refuse, timeout_s=1000))
    await gone(await read_pid(tmp_path / "self"))


async def test_a_program_that_fails_after_some_text_is_its_own_error(tmp_path: Path) -> None:
    pieces: list[str] = []
    error = await failure(backend(program(tmp_path, "echo half; exit 3")), on_delta=pieces.append)
    assert type(error) is ServerFailed and pieces == ["half"]


async def test_a_flood_is_handed_on_only_up_to_its_bound(tmp_path: Path) -> None:
    pieces: list[str] = []
    error = await failure(backend(program(tmp_path, "exec yes")), on_delta=pieces.append, timeout_s=1000)
    assert type(error) is BadReply and sum(map(len, pieces)) <= 1024 * 1024


def test_capabilities_and_price_say_what_is_so() -> None:
    """No form can be asked of a program, and what it costs is not known."""
    one = backend("it")
    can = one.capabilities("it")
    assert (can.schema, can.json_object, can.streaming, can.logprobs, can.local) == (False, False, True, False, False)
    assert one.price("it") is None


async def test_words_of_a_command_are_not_read_by_a_shell(tmp_path: Path) -> None:
    """Each word reaches the program as it is."""
    reply = await backend(program(tmp_path, 'printf "%s|" "$@"'), "a b", "$HOME", "; ls").chat(request())
    assert reply.text == "a b|$HOME|; ls|"


async def test_a_prompt_that_is_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """A program may answer without having read it."""
    long = ChatRequest((Message("user", "x" * 1_000_000),), "it", timeout_s=LIMIT_S)
    assert (await backend(program(tmp_path, "echo done")).chat(long)).text == "done"


async def test_it_runs_in_an_empty_folder_that_is_removed(tmp_path: Path) -> None:
    """It sees none of our files, and what it writes is gone afterwards."""
    folder = (await backend(program(tmp_path, "touch made; pwd")).chat(request())).text
    assert folder != str(Path.cwd()) and not exists(folder)


async def test_it_sees_none_of_our_keys_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what programs need is passed on, and the one key that is set for it; that key is not kept in the reply."""
    for name in ("OPENROUTER_API_KEY", "DATABASE_URL", "TRADENT_DATABASE__URL", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.setenv(name, "hidden-value")
    one = backend(program(tmp_path, "env"), api_key=KEY, api_key_env="ANTHROPIC_API_KEY")
    seen = (await one.chat(request())).text
    assert "hidden-value" not in seen
    assert "PATH=" in seen
    assert "ANTHROPIC_API_KEY=[key removed]" in seen and KEY not in seen
    assert KEY not in repr(one)


@pytest.mark.parametrize(
    ("script", "expected", "said"),
    [
        ("echo 'it broke' >&2; exit 3", ServerFailed, "ended with status 3: it broke"),
        ("exit 1", ServerFailed, "it said nothing"),
        ("kill -9 $$", ServerFailed, "ended by signal 9"),
        ("echo 'Invalid API key. Please run /login'; exit 1", Unauthorized, "/login"),
        ("echo 'Credit balance is too low'; exit 1", PaymentRequired, "Credit balance"),
        ("echo 'Usage limit reached' >&2; exit 1", RateLimited, "Usage limit"),
        ("echo 'Prompt is too long'; exit 1", ContextExceeded, "too long"),
        ("exit 0", BadReply, "printed nothing"),
        ("echo 'warning' >&2", BadReply, "printed nothing: warning"),
    ],
)
async def test_a_program_that_fails_is_its_own_error(
    tmp_path: Path, script: str, expected: type[BackendError], said: str
) -> None:
    """The class says whether to try again; the message shows what the program said."""
    error = await failure(backend(program(tmp_path, script)))
    assert type(error) is expected
    assert said in str(error) and "cli/it" in str(error)
    assert error.charged


async def test_a_key_that_a_failing_program_prints_is_not_shown(tmp_path: Path) -> None:
    one = backend(program(tmp_path, 'echo "bad key $K" >&2; exit 1'), api_key=KEY, api_key_env="K")
    error = await failure(one)
    assert "[key removed]" in str(error) and KEY not in f"{error} {error.reply}"


async def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the time limit nothing of it is left, and no wait hangs on what its children hold open."""
    script = f"sleep 1000 & echo $! > {tmp_path}/child; trap '' TERM; sleep 1000"
    error = await failure(backend(program(tmp_path, script)), timeout_s=3.0)
    assert type(error) is TimedOut and "3 s" in str(error)
    await gone(await read_pid(tmp_path / "child"))


async def test_children_left_behind_by_a_program_that_answered_are_ended(tmp_path: Path) -> None:
    """They would hold its output open: the reply does not wait for them."""
    script = f"sleep 1000 & echo $! > {tmp_path}/child; echo answer"
    async with asyncio.timeout(LIMIT_S):
        assert (await backend(program(tmp_path, script)).chat(request(timeout_s=1000))).text == "answer"
    await gone(await read_pid(tmp_path / "child"))


@pytest.mark.skipif(shutil.which("setsid") is None, reason="setsid is not installed")
async def test_a_child_that_left_the_group_does_not_hold_the_reply_up(tmp_path: Path) -> None:
    """It cannot be ended with the group, but the reply is there all the same."""
    child = f"setsid sh -c 'echo $$ > {tmp_path}/child; exec sleep 1000' &"
    script = f"{child}\nuntil [ -s {tmp_path}/child ]; do :; done; echo ok"
    async with asyncio.timeout(LIMIT_S):
        reply = await backend(program(tmp_path, script)).chat(request(timeout_s=1000))
    assert reply.text.endswith("ok")
    psutil.Process(await read_pid(tmp_path / "child")).kill()


async def test_a_program_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    """More than a MiB is no reply, and is not kept."""
    async with asyncio.timeout(LIMIT_S):
        error = await failure(backend(program(tmp_path, f"echo $$ > {tmp_path}/self; exec yes")), timeout_s=1000)
    assert type(error) is BadReply and "1048576 bytes" in str(error)
    await gone(await read_pid(tmp_path / "self"))


async def test_complaints_without_end_do_not_hold_a_program_up(tmp_path: Path) -> None:
    """What is beyond their bound is read and dropped."""
    script = "head -c 3000000 /dev/zero | tr '\\0' 'x' >&2; echo answer"
    assert (await backend(program(tmp_path, script)).chat(request())).text == "answer"


async def test_a_call_that_is_cancelled_ends_its_program(tmp_path: Path) -> None:
    """Shutting down leaves nothing running."""
    one = backend(program(tmp_path, f"echo $$ > {tmp_path}/self; sleep 1000"))
    call = asyncio.create_task(one.chat(request(timeout_s=1000)))
    pid = await read_pid(tmp_path / "self")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gone(pid)


async def test_no_more_run_at_once_than_there_is_room_for(tmp_path: Path) -> None:
    """With room for one, the second starts when the first has ended."""
    script = f"mkdir {tmp_path}/busy || exit 9; sleep 0.05; rmdir {tmp_path}/busy; echo ok"
    one = backend(program(tmp_path, script), max_connections=1)
    replies = await asyncio.gather(*(one.chat(request()) for _ in range(4)))
    assert [reply.text for reply in replies] == ["ok"] * 4


async def test_a_command_that_is_not_there_is_told_of_and_not_charged(tmp_path: Path) -> None:
    """Unknown names and missing programs say which setting to change."""
    one = backend(str(tmp_path / "nowhere"))
    error = await failure(one)
    assert type(error) is NotUsable and "is not installed" in str(error)
    assert not (await one.check("it")).usable
    other = await one.check("gpt")
    assert not other.usable and "set llm.backends.cli.commands.gpt" in other.detail


async def test_a_file_that_is_no_program_is_told_of(tmp_path: Path) -> None:
    """A start that the system refuses is an error of ours."""
    path = program(tmp_path, "", first_line="\0\1")
    assert type(await failure(backend(path))) is NotUsable


async def test_a_key_that_is_named_but_not_set_is_missed_at_the_check(tmp_path: Path) -> None:
    health = await backend(program(tmp_path, "cat"), api_key_env="MY_KEY").check("it")
    assert not health.usable and "MY_KEY is not set" in health.detail


async def test_a_check_finds_the_program_without_running_it(tmp_path: Path) -> None:
    health = await backend(program(tmp_path, f"touch {tmp_path}/ran")).check("it")
    assert health.usable and str(tmp_path / "assistant") in health.detail
    assert not (tmp_path / "ran").exists()


async def test_a_command_from_the_settings_rates_as_any_model_does(tmp_path: Path) -> None:
    """Its name is a model string like others; the reply says who answered."""
    commands = {"mine": [program(tmp_path, "cat > /dev/null; echo yes")]}
    config = LLMConfig(model="cli/mine", fallback_models=[], backends={"cli": {"commands": commands}})
    caller = build(config, FakeClock(), {})
    reply = await caller.backend.chat(request(""))
    await caller.close()
    assert (reply.text, reply.answered_by, reply.fallback) == ("yes", "cli/mine", False)


def test_claude_is_known_and_commands_are_settings() -> None:
    """`cli/claude` works as it is; a command of one's own is a list of words, never empty."""
    assert "claude" in Backend(BackendContext("cli", FakeClock()))._commands
    config = LLMConfig(model="cli/mine", backends={"cli": {"commands": {"mine": ["mine", "-q"]}}})
    assert config.backends["cli"].commands == {"mine": ["mine", "-q"]}
    with pytest.raises(ValueError, match="at least 1 item"):
        LLMConfig(backends={"cli": {"commands": {"mine": []}}})
