"""Templates with named fields, `{symbol}` or `{adx:.1f}`: read once, every mistake found then, and filled in one pass.

A field is a name that is looked up, and for figures how they are written; it reaches into nothing. What is filled in
is never read as a template again.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from llm_integration.prompts.values import NOT_KNOWN

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")
_NAME = re.compile(r"[a-z_][a-z0-9_]*(?:\.[a-z0-9_]+)*")
_SPEC = re.compile(r"[<>^]?[+ -]?0?\d{0,2}[,_]?(?:\.\d{1,2})?[eEfFgG%]?")
_MOST_SHOWN = 40


class Field(NamedTuple):
    """A place in a template: the name of what stands there, how figures are written, and the line it is on."""

    name: str
    spec: str
    line: int


class Figure(NamedTuple):
    """A number to fill in: `plain` is how it is written where the field does not say how."""

    value: float | None
    plain: str

    def written(self, spec: str) -> str:
        """The number as `spec` says; n/a where it is not known, whatever the spec."""
        if not spec:
            return self.plain
        return NOT_KNOWN if self.value is None or not math.isfinite(self.value) else format(self.value, spec)


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields. `file` is where it came from, for messages; `parts` its words and fields in turn."""

    file: str
    parts: tuple[str | Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """Every field, as often as it stands there."""
        return tuple(part for part in self.parts if isinstance(part, Field))

    @property
    def names(self) -> tuple[str, ...]:
        """The fields' names, each once, in order."""
        return tuple(dict.fromkeys(field.name for field in self.fields))

    def fill(self, values: Mapping[str, str | Figure]) -> str:
        """The text with `values` in their places; those that are text must be safe to stand there as they are.

        Raises ValueError where a text meets a field that says how to write a figure.
        """
        return "".join([part if isinstance(part, str) else _written(part, values[part.name]) for part in self.parts])


def _written(field: Field, value: str | Figure) -> str:
    if isinstance(value, Figure):
        return value.written(field.spec)
    if field.spec:
        raise ValueError(f"{{{field.name}:{field.spec}}} is to write a number, and was given a text")
    return value


def read_template(text: str, file: str, mistake: Callable[[str], None]) -> Template:
    """The template that a file's text is; each thing wrong with it is handed to `mistake`, a line each."""
    parts: list[str | Field] = []
    words: list[str] = []
    position = 0
    text = text.strip()
    if not text:
        mistake(f"{file} is empty; delete the file to use the text built in")
    for token in _TOKEN.finditer(text):
        words.append(text[position : token.start()])
        position = token.end()
        line = text.count("\n", 0, token.start()) + 1
        if token[0] in ("{{", "}}"):
            words.append(token[0][0])
        elif token[1] is None:
            mistake(f"{file}, line {line}: a {token[0]} stands alone; write {token[0] * 2} for the character itself")
        else:
            name, _, spec = token[1].partition(":")
            wrong = _wrong(name, spec)
            if wrong:
                mistake(f"{file}, line {line}: {token[0][:_MOST_SHOWN]} {wrong}")
            else:
                parts += ["".join(words), Field(name, spec, line)]
                words.clear()
    parts.append("".join(words) + text[position:])
    return Template(file, tuple(part for part in parts if part != ""))


def _wrong(name: str, spec: str) -> str | None:
    """Why this is no field; None where it is one."""
    if "!" in name:
        return "has a conversion; a field is a name, and for figures how they are written, as in {adx:.1f}"
    if "[" in name or "(" in name:
        return "reaches into a value; a field is a name, and for figures how they are written, as in {adx:.1f}"
    if not _NAME.fullmatch(name):
        return "is no field; write {{ and }} for braces that stand for themselves"
    if not _SPEC.fullmatch(spec) or not _takes(spec):
        return f"is to be written {spec!r}, which is no way to write a figure; expected such as .1f, .3g, +.2% or ,.0f"
    return None


def _takes(spec: str) -> bool:
    try:
        format(1.5, spec)
    except ValueError:
        return False
    return True
