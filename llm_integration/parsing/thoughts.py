"""Taking a model's thoughts off its reply."""

import re

from llm_integration.parsing.stated import Refused

_WORDS = "think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis"
_TAG = re.compile(rf"<(/?)(?:{_WORDS})(?:\s[^<>]{{0,100}})?>|◁(/?)think▷|\[(/?)THINK\]", re.IGNORECASE)
_CHANNEL = "<|channel|>"
_FINAL = re.compile(r"<\|channel\|>final[^<]{0,60}<\|message\|>")


def without_thoughts(text: str) -> str:
    """The reply outside `<think>` and its like, and after a closing tag whose opening one the server kept.

    Raises Refused when the reply ends inside its thoughts and states nothing before them.
    """
    if _CHANNEL in text:
        text = _final_channel(text)
    if "<" not in text and "◁" not in text and "[" not in text:
        return text
    kept: list[str] = []
    depth, position = 0, 0
    for tag in _TAG.finditer(text):
        if depth == 0:
            kept.append(text[position : tag.start()])
        if not (tag[1] or tag[2] or tag[3]):
            depth += 1
        elif depth > 0:
            depth -= 1
        else:
            kept.clear()
        position = tag.end()
    if depth == 0:
        kept.append(text[position:])
    answer = "".join(kept)
    if depth > 0 and not answer.strip():
        raise Refused("the reply ends inside the model's reasoning, before an answer; allow it more tokens")
    return answer


def _final_channel(text: str) -> str:
    ends = [match.end() for match in _FINAL.finditer(text)]
    if not ends:
        raise Refused("the reply ends inside the model's reasoning, before an answer; allow it more tokens")
    return text[ends[-1] :].partition("<|")[0]
