"""A GGUF file as llama.cpp's Python package runs it, from a prompt to tokens. For one thread at a time.

Only the package's public names are used. Generation goes token by token here rather than by its own chat call, for
what that lacks: an end at any token, a prompt read in steps, probabilities without keeping those of the whole context.
"""

import codecs
import ctypes
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from llm_integration.backends.wire.gguf_file import inspect, llama_package
from llm_integration.errors import ContextExceeded, NotUsable, RequestRejected, ServerFailed
from llm_integration.model import Message
from llm_integration.ports import ChatReply, ChatRequest, TokenLogprob
from trading.clock import Clock

_STEP_TOKENS = 128
_LONGEST_RANGE = 1000


class Stopped(Exception):
    """Generation was told to end."""


class GgufModel:
    """A loaded model. Raises NotUsable where it cannot be loaded."""

    def __init__(self, path: Path, wanted: int | None) -> None:
        self.context_tokens = inspect(path, wanted)
        self._package = llama_package()
        self._path = path
        try:
            self._llama = self._package.Llama(str(path), n_ctx=self.context_tokens, n_gpu_layers=-1, verbose=False)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise NotUsable(f"{path} cannot be loaded: {error}; is there enough memory for it?") from None
        self._vocabulary = self._package.llama_model_get_vocab(self._llama.model)
        self._formatter = self._chat_formatter()
        self._grammars: dict[str, Any] = {}

    def answer(
        self, request: ChatRequest, stop: threading.Event, hand_on: Callable[[str], None] | None, clock: Clock
    ) -> ChatReply:
        """The reply; `hand_on` is given its text as it comes. Raises BackendError, and Stopped soon after `stop`."""
        grammar = self._grammar(request)
        prompt = self._prompt(request.messages)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise ContextExceeded(
                f"the prompt has {len(prompt)} tokens, and the context of {self._path} {self.context_tokens}; "
                "set llm.backends.gguf.context_tokens higher, if the model reads more"
            )
        try:
            self._read(prompt, stop)
            began_at = clock.monotonic()
            text, probabilities, ended, count = self._write(
                prompt, request, grammar, min(request.max_tokens, room), stop, hand_on
            )
        except RuntimeError as error:
            self._llama.reset()
            raise ServerFailed(f"llama.cpp failed at {self._path}: {error}") from None
        return ChatReply(
            text=text, model=self._llama.metadata.get("general.name"), finish_reason="stop" if ended else "length",
            prompt_tokens=len(prompt), completion_tokens=count, cost_usd=Decimal(0), cost_source="free",
            headers_at=began_at, logprobs=probabilities,
        )  # fmt: skip

    def count(self, messages: Sequence[Message]) -> int:
        """How many tokens a prompt of these messages has. Raises RequestRejected."""
        return len(self._prompt(messages))

    def close(self) -> None:
        """Free its memory."""
        self._llama.close()

    def _write(
        self,
        prompt: Sequence[int],
        request: ChatRequest,
        grammar: Any,
        most: int,
        stop: threading.Event,
        hand_on: Callable[[str], None] | None,
    ) -> tuple[str, tuple[TokenLogprob, ...], bool, int]:
        """Text, probabilities, whether the model itself ended it, and how many tokens it wrote."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        pieces, probabilities, count, ended = [], [], 0, False
        for token in self._llama.generate(prompt, temp=request.temperature, grammar=grammar):
            if stop.is_set():
                raise Stopped
            count += 1
            ended = self._package.llama_vocab_is_eog(self._vocabulary, token)
            if ended:
                break
            pieces.append(decoder.decode(self._piece(token)))
            if hand_on is not None and pieces[-1]:
                hand_on(pieces[-1])
            if request.top_logprobs:
                probabilities.append(self._probability(token, pieces[-1], request.top_logprobs))
            if count >= most:
                break
        pieces.append(decoder.decode(b"", final=True))
        if hand_on is not None and pieces[-1]:
            hand_on(pieces[-1])
        return "".join(pieces), tuple(probabilities), ended, count

    def _read(self, prompt: list[int], stop: threading.Event) -> None:
        """Take the prompt in, less what the last one began with too. Raises Stopped between two steps."""
        llama, package = self._llama, self._package
        shared = _shared(llama.input_ids[: llama.n_tokens].tolist(), prompt[:-1])
        memory = package.llama_get_memory(llama.ctx)
        if shared and package.llama_memory_seq_rm(memory, -1, shared, -1):
            llama.n_tokens = shared
        else:
            shared = 0
            llama.reset()
        for start in range(shared, len(prompt), _STEP_TOKENS):
            if stop.is_set():
                raise Stopped
            llama.eval(prompt[start : start + _STEP_TOKENS])

    def _prompt(self, messages: Sequence[Message]) -> list[int]:
        """The messages as the model's own template writes them, in tokens."""
        try:
            text = self._formatted(messages)
        except Exception as refused:
            # Templates are programs of the model's maker; many refuse a system message, and say so in their own way.
            try:
                text = self._formatted(_without_system(messages))
            except Exception:
                said = f"the chat template of {self._path} refuses these messages: {refused}"
                raise RequestRejected(said) from None
        tokens: list[int] = self._llama.tokenize(text.encode("utf-8", "replace"), add_bos=False, special=True)
        first = self._llama.token_bos()
        if self._package.llama_vocab_get_add_bos(self._vocabulary) and tokens[:1] != [first]:
            tokens.insert(0, first)
        return tokens

    def _formatted(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        text: str = self._formatter(messages=turns, enable_thinking=False).prompt
        return text

    def _chat_formatter(self) -> Any:
        template = self._llama.metadata.get("tokenizer.chat_template")
        if not template:
            self._llama.close()
            raise NotUsable(f"{self._path} has no chat template; take the GGUF file of an instruct or chat model")
        first, last = (self._name(token) for token in (self._llama.token_bos(), self._llama.token_eos()))
        formatter = self._package.llama_chat_format.Jinja2ChatFormatter
        return formatter(template=template, bos_token=first, eos_token=last)

    def _grammar(self, request: ChatRequest) -> Any:
        """What the reply is held to; None for free text. Raises RequestRejected."""
        if request.schema is None and not request.json_object:
            return None
        asked = json.dumps(None if request.schema is None else _enumerated(request.schema))
        if asked not in self._grammars:
            self._grammars[asked] = self._new_grammar(asked if request.schema is not None else None)
        return self._grammars[asked]

    def _new_grammar(self, schema: str | None) -> Any:
        module = self._package.llama_grammar
        try:
            rules: str = module.JSON_GBNF if schema is None else module.json_schema_to_gbnf(schema)
        except Exception as error:
            # Whatever the converter raises, it is about the schema.
            raise RequestRejected(f"llama.cpp can make no grammar of the schema: {error!r}") from None
        sampler = self._package.llama_sampler_init_grammar(self._vocabulary, rules.encode(), b"root")
        if not sampler:
            raise RequestRejected("llama.cpp does not take the grammar of the schema; simplify the schema")
        self._package.llama_sampler_free(sampler)
        return module.LlamaGrammar.from_string(rules, verbose=False)

    def _probability(self, token: int, text: str, most: int) -> TokenLogprob:
        """The log probability of the token that added `text`, before temperature and grammar, and the likeliest others.

        Joined, the tokens are the text: of a character made of several, the last one has it all.
        """
        found = self._package.llama_get_logits_ith(self._llama.ctx, -1)
        logits = np.ctypeslib.as_array(found, shape=(self._llama.n_vocab(),)).astype(np.float64)
        shifted = logits - logits.max()
        logs = shifted - np.log(np.exp(shifted).sum())
        likeliest = [int(other) for other in np.argsort(-logs, kind="stable")[:most] if other != token]
        others = tuple((self._text(other), float(logs[other])) for other in likeliest)
        return TokenLogprob(text, float(logs[token]), others)

    def _text(self, token: int) -> str:
        return self._piece(token).decode("utf-8", "replace") or self._name(token)

    def _name(self, token: int) -> str:
        """A token as the vocabulary lists it, marks like <|im_end|> included."""
        if token < 0:
            return ""
        name: bytes = self._package.llama_vocab_get_text(self._vocabulary, token)
        return name.decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        """The bytes a token adds to a text."""
        size = 64
        while True:
            buffer = (ctypes.c_char * size)()
            length: int = self._package.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        if first != second:
            return number
    return min(len(one), len(other))


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The same with what the system says put before the first words of the others."""
    said = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    if said and others:
        others[0] = Message(others[0].role, "\n\n".join([*said, others[0].content]))
    return others


def _enumerated(schema: object) -> object:
    """The schema with short ranges of integers listed: grammars know no bounds of numbers."""
    if isinstance(schema, list):
        return [_enumerated(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    low: Any = schema.get("minimum")
    high: Any = schema.get("maximum")
    bounded = schema.get("type") == "integer" and isinstance(low, int) and isinstance(high, int)
    if bounded and "enum" not in schema and 0 <= high - low <= _LONGEST_RANGE:
        return {"enum": list(range(low, high + 1))}
    return {name: _enumerated(value) for name, value in schema.items()}
