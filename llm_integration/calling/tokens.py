"""What a server counts as tokens against its quota: the prompt; prompt and reply; prompt and the reply's bound."""

from typing import Literal

from llm_integration.ports import ChatReply, ChatRequest

TokenMode = Literal["input", "input_output", "input_max"]


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
