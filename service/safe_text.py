"""Text from outside made fit for a terminal or a log line: nothing in it is obeyed, nothing in it breaks a line."""

import re

_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]?"
)
_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    """`text` on one line, without control sequences, control characters and marks that turn the reading direction."""
    if text.isprintable():
        return text
    kept = (_shown(character) for character in _SEQUENCE.sub("", text))
    return " ".join("".join(kept).split())


def escaped(text: str) -> str:
    r"""`text` on one line, with whatever cannot be seen written out: `\n`, `\x1b`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _written(character) for character in text)


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ""


def _written(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
