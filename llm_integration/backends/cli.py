"""Asks a command line assistant: any program that reads a prompt on standard input and prints its reply.

The part of the model string after `cli/` names the command: `claude` is known, others are set in
`llm.backends.cli.commands`. No shell is involved. The program runs in an empty folder, in a process group of its own
that is killed when it is done or late, and sees of our environment only what programs need to run: no key but the one
that `llm.backends.cli.api_key_env` names.
"""

import asyncio
import codecs
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryDirectory, TemporaryFile
from typing import ClassVar

from llm_integration.backends.wire.secrets import Scrubber
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
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price

_KNOWN_COMMANDS: dict[str, Sequence[str]] = {"claude": ("claude", "-p", "--tools", "")}
_SHOWN_NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
})  # fmt: skip
_SHOWN_STARTS = ("LC_", "XDG_")
_REPLY_LIMIT_BYTES = 1024 * 1024
_COMPLAINT_LIMIT_BYTES = 64 * 1024
_DRAIN_LIMIT_S = 1.0
_LONGEST_MESSAGE = 400
_WHO = {"user": "User", "assistant": "Assistant"}
_CONVERSATION = "The conversation so far:"
_YOUR_TURN = "Reply to the user's last message as the assistant, with the reply alone."
_FAILURES: Sequence[tuple[type[BackendError], Sequence[str]]] = (
    (Unauthorized, ("invalid api key", "/login", "log in", "not logged in", "unauthorized", "authentication")),
    (PaymentRequired, ("credit balance", "insufficient_quota", "payment required")),
    (RateLimited, ("rate limit", "usage limit", "limit reached", "too many requests")),
    (ContextExceeded, ("prompt is too long", "context window", "context length")),
)


class Backend:
    """One process for each call, up to `max_connections` at once."""

    API_KEY_ENV: ClassVar[str | None] = None
    METERED: ClassVar[bool] = True

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self._clock = context.clock
        self._commands = {**_KNOWN_COMMANDS, **context.commands}
        self._key, self._key_name = context.api_key, context.api_key_env
        self._scrub = Scrubber(context.api_key)
        self._room = asyncio.Semaphore(context.max_connections)

    async def chat(self, request: ChatRequest) -> ChatReply:
        """What the program printed. Raises BackendError. `request.timeout_s` starts once there is room for it."""
        unusable = self._unusable(request.model)
        if unusable is not None:
            raise NotUsable(unusable)
        handing = None if request.on_delta is None else _Handing(request.on_delta, self._scrub)
        async with self._room:
            status, printed, complaint = await self._ask(request, handing)
        ended_at = self._clock.monotonic()
        if status != 0:
            raise self._failure(request.model, status, complaint or printed, ended_at)
        if not printed.strip():
            said = f": {_short(complaint)}" if complaint.strip() else ""
            raise BadReply(f"{self.name}/{request.model} printed nothing{said}", headers_at=ended_at)
        if handing is not None:
            handing.end()
        return ChatReply(text=printed.strip(), model=None, headers_at=ended_at)

    async def check(self, model: str) -> Health:
        """Whether the command is there to be run; it is not run."""
        unusable = self._unusable(model)
        if unusable is not None:
            return Health(False, unusable)
        return Health(True, f"runs {shutil.which(self._commands[model][0])}; whether it is logged in shows in use")

    def capabilities(self, model: str) -> Capabilities:
        """What a program prints can be handed on as it comes, and is held to no form; where it runs is not known."""
        return Capabilities(schema=False, json_object=False, streaming=True, logprobs=False)

    def price(self, model: str) -> Price | None:
        """Not known here."""
        return None

    async def close(self) -> None:
        """There is nothing to let go of: a program ends with its call."""

    def _unusable(self, model: str) -> str | None:
        command = self._commands.get(model)
        if os.name != "posix":
            return "command line assistants are run on Linux and macOS only"
        if command is None:
            known = ", ".join(sorted(self._commands))
            return f"no command is set for {model!r}; set llm.backends.cli.commands.{model}; there are {known}"
        if self._key_name is not None and not self._key:
            return f"{self._key_name} is not set; put it in the environment or the credentials directory"
        if shutil.which(command[0]) is None:
            return f"{command[0]} is not installed or not on the PATH; llm.backends.cli.commands.{model} names another"
        return None

    async def _ask(self, request: ChatRequest, handing: "_Handing | None") -> tuple[int, str, str]:
        """Exit status, output and complaints, free of the key. Raises BackendError, and what the receiver raises."""
        where, command = f"{self.name}/{request.model}", self._commands[request.model]
        failure: BackendError
        try:
            async with asyncio.timeout(request.timeout_s):
                with (
                    TemporaryDirectory(prefix="tradent-", ignore_cleanup_errors=True) as folder,
                    TemporaryFile() as file,
                ):
                    file.write(_prompt(request).encode("utf-8", "replace"))
                    file.seek(0)
                    environment = self._environment()
                    status, printed, complaint = await _run(command, environment, folder, file.fileno(), handing)
                    return status, self._scrub(printed), self._scrub(complaint)
        except TimeoutError:
            failure = TimedOut(f"{where} gave no full reply within {request.timeout_s:g} s, and was ended")
        except _TooMuch:
            failure = BadReply(f"{where} printed more than {_REPLY_LIMIT_BYTES} bytes, and was ended")
        except OSError as error:
            failure = NotUsable(f"{where} cannot be started: {error.strerror or error}")
        raise failure

    def _environment(self) -> dict[str, str]:
        shown = {
            name: value for name, value in os.environ.items() if name in _SHOWN_NAMES or name.startswith(_SHOWN_STARTS)
        }
        if self._key is not None and self._key_name is not None:
            shown[self._key_name] = self._key
        return shown

    def _failure(self, model: str, status: int, said: str, ended_at: float) -> BackendError:
        lowered = said.lower()
        kind = next((kind for kind, words in _FAILURES if any(word in lowered for word in words)), ServerFailed)
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        message = f"{self.name}/{model} {how}: {_short(said) or 'it said nothing'}"
        return kind(message, headers_at=ended_at, reply=said or None)


class _TooMuch(Exception):
    """The program prints without end."""


class _Handing:
    """Hands the reply on as it is printed, free of the key, and as bare of blanks around it as the whole will be."""

    def __init__(self, on_delta: Callable[[str], None], scrub: Scrubber) -> None:
        self._on_delta = on_delta
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._trickle = scrub.trickle()
        self._begun = False
        self._blanks = ""
        self.raised: Exception | None = None

    def take(self, data: bytes) -> None:
        """What was printed now; what the receiver raises is kept in `raised`."""
        try:
            self._hand_on(self._trickle.feed(self._decoder.decode(data)))
        except Exception as error:
            # It belongs to whoever asked, and is raised there.
            self.raised = error

    def end(self) -> None:
        """Hand on what was held back. Raises what the receiver raises."""
        self._hand_on(self._trickle.feed(self._decoder.decode(b"", final=True)) + self._trickle.rest())

    def _hand_on(self, text: str) -> None:
        text = self._blanks + text if self._begun else text.lstrip()
        said = text.rstrip()
        self._blanks = text[len(said) :]
        if said:
            self._begun = True
            self._on_delta(said)


class _Output(asyncio.Protocol):
    """What comes out of a pipe, up to a limit; the rest is read and dropped, so that the program is not held up.

    `stop` is set where it is too much, or where nobody wants to hear it any more.
    """

    def __init__(self, limit_bytes: int, handing: _Handing | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._handing = handing
        self.data = bytearray()
        self.too_much = False
        self.stop = asyncio.Event()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        room = self._limit_bytes - len(self.data)
        self.data += data[:room]
        if len(data) > room:
            self.too_much = True
            self.stop.set()
        if self._handing is not None and self._handing.raised is None and not self.too_much:
            self._handing.take(data)
            if self._handing.raised is not None:
                self.stop.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


@asynccontextmanager
async def _pipe(output: _Output) -> AsyncIterator[int]:
    """The end of a pipe that a program writes into; what it writes goes to `output`."""
    # A pipe of our own: a wait for a process that asyncio gave pipes may last until its children have closed them.
    outlet, inlet = os.pipe()
    file = os.fdopen(outlet, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, file)
    try:
        yield inlet
    finally:
        transport.close()


async def _run(
    command: Sequence[str], environment: dict[str, str], folder: str, prompt: int, handing: _Handing | None
) -> tuple[int, str, str]:
    """Exit status, output and complaints. However it ends, nothing of its process group is left running.

    Raises OSError where it cannot be started, _TooMuch, and what the receiver of the reply's pieces raises.
    """
    printed, complaint = _Output(_REPLY_LIMIT_BYTES, handing), _Output(_COMPLAINT_LIMIT_BYTES)
    async with _pipe(printed) as stdout, _pipe(complaint) as stderr:
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=prompt, stdout=stdout, stderr=stderr,
                env=environment, cwd=folder, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(stdout)
            os.close(stderr)
        exited = asyncio.create_task(process.wait(), name="assistant's end")
        stopped = asyncio.create_task(printed.stop.wait(), name="assistant's stop")
        try:
            await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            stopped.cancel()
            status = await exited
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_LIMIT_S):
                await printed.ended.wait()
                await complaint.ended.wait()
    if printed.too_much:
        raise _TooMuch
    if handing is not None and handing.raised is not None:
        raise handing.raised
    return status, printed.data.decode("utf-8", "replace"), complaint.data.decode("utf-8", "replace")


def _prompt(request: ChatRequest) -> str:
    """What the program reads: the texts alone where one question is asked, else each turn under who said it."""
    roles = [message.role for message in request.messages]
    if "assistant" not in roles and roles.count("user") <= 1:
        return "\n\n".join(message.content for message in request.messages) + "\n"
    system = [message.content for message in request.messages if message.role == "system"]
    turns = [
        f"{_WHO.get(message.role, message.role)}:\n{message.content}"
        for message in request.messages
        if message.role != "system"
    ]
    return "\n\n".join([*system, _CONVERSATION, *turns, _YOUR_TURN]) + "\n"


def _short(said: str) -> str:
    line = " ".join(said.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + " …"
