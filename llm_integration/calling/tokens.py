"""How many tokens a request may come to, and what a server counts of them against its quota."""

import math
from collections.abc import Sequence
from typing import Literal

from llm_integration.model import Message
from llm_integration.ports import ChatReply, ChatRequest

MESSAGE_OVERHEAD_TOKENS = 4
TokenMode = Literal["input", "input_output", "input_max"]
"""What is counted: the prompt; prompt and reply; prompt and the reply's bound."""


def estimate_tokens(messages: Sequence[Message], max_tokens: int, bytes_per_token: float = 2.0) -> int:
    """Upper-side guess of what a request costs: the prompt's UTF-8 bytes by `bytes_per_token`, and the whole reply.

    Tables of figures take about two bytes a token, prose four; the actual usage corrects the guess afterwards.
    """
    size = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
    return math.ceil(size / bytes_per_token) + MESSAGE_OVERHEAD_TOKENS * len(messages) + max_tokens


def wanted_tokens(request: ChatRequest, mode: TokenMode) -> int:
    """What to reserve before a call: the most it can come to."""
    if mode == "input":
        return max(0, request.estimated_tokens - request.max_tokens)
    return request.estimated_tokens


def used_tokens(request: ChatRequest, reply: ChatReply, mode: TokenMode) -> int | None:
    """What a reply came to; None where it does not say."""
    if reply.prompt_tokens is None:
        return None
    if mode == "input":
        return reply.prompt_tokens
    if mode == "input_max":
        return reply.prompt_tokens + request.max_tokens
    return None if reply.completion_tokens is None else reply.prompt_tokens + reply.completion_tokens
