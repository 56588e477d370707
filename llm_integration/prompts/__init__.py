"""What models are asked: versioned templates that a user can edit or add to, read once and checked when loaded.

A prompt is a few files named `<name>.<part>.txt`; `docs/prompts.md` says what stands in each. Its version is the
content hash of them all and of the schema of the reply.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from llm_integration.contracts import contract_names, schema_text
from llm_integration.prompts.files import PromptFiles
from llm_integration.prompts.template import Field, Figure, Template, read_template
from llm_integration.prompts.values import number_text, quote, time_text
from trading.errors import SettingsError

DEFAULT = "rate_signal.v1"
MAX_CONTEXT_LENGTH = 4000
NEEDED_PARTS = ("system", "single", "batch", "signal")
OPTIONAL_PARTS = ("line", "context")
CONTRACT = "contract"
SIGNAL_FIELDS: Mapping[str, str] = {
    "number": "the signal's number in the question, from 1",
    "source": "where its bars come from, quoted",
    "symbol": "quoted",
    "timeframe": "such as 5m, quoted",
    "strategy": "the rule that fired, quoted",
    "side": "long, short or exit",
    "strength": "of the rule's event, 0 to 1",
    "close_time": "when its bar closed, UTC",
    "price": "the close of that bar",
    "origin": "who made the signal, and whose bars and indicators are shown",
    "bar_sources": "where the bars shown come from, each quoted",
    "bar_count": "how many bars are shown",
    "bars": "a line for each bar: time,open,high,low,close,volume",
    "indicators": "a line for each of `llm.indicators_to_include`",
}
FIGURES = frozenset({"number", "strength", "price", "bar_count", "count"})
_DATA = frozenset({"bars", "indicators", "price"})
_OWED = {"single": ("signals",), "batch": ("signals",), "line": ("signals",), "signal": ("number", "side")}
_OFFERED = {"single": ("signals",), "batch": ("signals", "count"), "line": ("signals",)}


class Rendered(str):
    """A text made from a template: it may stand in another as it is."""

    __slots__ = ()


Value = str | float | bool | datetime | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's parts, by name. `contract` names the reply's schema, `version` is the content hash."""

    name: str
    contract: str
    parts: Mapping[str, Template]
    version: str

    @property
    def system(self) -> str:
        """The system prompt of signals; the same for all of them."""
        return self.parts["system"].fill({})

    @property
    def indicators(self) -> tuple[str, ...]:
        """The indicators that are fields of their own: they must be computed for it."""
        return tuple(name for name in self.parts["signal"].names if name not in SIGNAL_FIELDS)

    def require_signals(self, knows_indicator: Callable[[str], bool]) -> None:
        """See that signals can be asked about with it. Raises SettingsError with a line for each mistake."""
        mistakes: list[str] = []
        for part, template in self.parts.items():
            if part == "context":
                mistakes.append(
                    f"{template.file}: there is nothing to fill it with when signals are rated; it is for programs "
                    "that fill it themselves. Move what describes a signal to the signal part"
                )
                continue
            for field in template.fields:
                wrong = _wrong_field(part, field, knows_indicator)
                if wrong:
                    mistakes.append(f"{template.file}, line {field.line}: {wrong}")
            missing = [name for name in _OWED.get(part, ()) if name not in template.names]
            mistakes += [f"{template.file}: the field {{{name}}} is missing" for name in missing]
        mistakes += self._lacking_data()
        if mistakes:
            raise SettingsError([f"llm.prompt = {self.name!r}: {mistake}" for mistake in mistakes])

    def render(self, part: str, /, **fields: Value) -> Rendered:
        """A part with fields of the caller's own, all that it has and no other. Raises ValueError otherwise.

        Text is quoted and kept to one line, except what was rendered before; figures are written as the field says;
        None is n/a.
        """
        if part not in self.parts:
            raise ValueError(f"prompt {self.name} has no part {part!r}; it has {', '.join(self.parts)}")
        template = self.parts[part]
        missing = [name for name in template.names if name not in fields]
        unknown = [name for name in fields if name not in template.names]
        if missing or unknown:
            known = ", ".join(template.names) or "none"
            raise ValueError(
                f"{template.file}: fields missing: {', '.join(missing) or 'none'}; fields not known: "
                f"{', '.join(unknown) or 'none'}; it has {known}"
            )
        return Rendered(template.fill({name: _given(name, value) for name, value in fields.items()}))

    def _lacking_data(self) -> list[str]:
        """What a reader of the question would miss of the signal's data."""
        signal, names = self.parts["signal"], set(self.parts["signal"].names)
        lacking = []
        if not names & _DATA and not self.indicators:
            lacking.append(f"{signal.file}: it shows nothing of the market; use {{bars}}, {{indicators}} or {{price}}")
        if self.contract.startswith("propose_trade"):
            owed = [name for name in ("symbol", "timeframe") if name not in names]
            lacking += [f"{signal.file}: the field {{{name}}} is missing; the reply has to repeat it" for name in owed]
        return lacking


def load_prompt(name: str = DEFAULT, directory: Path | None = None) -> Prompt:
    """The prompt of that name: files in `directory` first, for the rest those built in.

    A part that a prompt lacks is that of the built-in prompt its contract is named after, or of the default one.
    Raises SettingsError with a line for each mistake in its files.
    """
    files = PromptFiles(name, directory, (*NEEDED_PARTS, *OPTIONAL_PARTS, CONTRACT))
    mistakes: list[str] = []
    contract = (files.own(CONTRACT) or ("", DEFAULT))[1].strip()
    if contract not in contract_names():
        file = f"{name}.{CONTRACT}.txt"
        mistakes.append(f"{file} names {contract[:40]!r}; expected one of {', '.join(contract_names())}")
        contract = DEFAULT
    parts: dict[str, Template] = {}
    texts: list[str] = []
    for part in (*NEEDED_PARTS, *OPTIONAL_PARTS):
        found = files.own(part) or (files.built_in(part, contract, DEFAULT) if part in NEEDED_PARTS else None)
        if found is None and part == "line" and contract == DEFAULT:
            found = files.built_in(part, DEFAULT)
        texts.append(found[1] if found else "")
        if found is not None:
            parts[part] = read_template(found[1], found[0], mistakes.append)
    if mistakes:
        raise SettingsError([f"llm.prompt = {name!r}: {mistake}" for mistake in mistakes])
    return Prompt(name, contract, parts, content_version([*texts, schema_text(contract)]))


def content_version(parts: list[str]) -> str:
    """First 12 hex digits of the SHA-256 over the parts; their borders count."""
    digest = sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:12]


def _wrong_field(part: str, field: Field, knows_indicator: Callable[[str], bool]) -> str | None:
    name, shown = field.name, f"{{{field.name}}}"
    if part == "system":
        return (
            f"{shown} cannot stand in the system part, which is the same for every signal; move it to the signal part"
        )
    offered = _OFFERED.get(part, tuple(SIGNAL_FIELDS))
    if name in offered:
        text = field.spec and name not in FIGURES
        return f"{shown} is a text; it takes no {':' + field.spec!r}" if text else None
    if part == "signal" and knows_indicator(name):
        return None
    close = difflib.get_close_matches(name, offered, 1)
    guess = f"did you mean {{{close[0]}}}? " if close else ""
    more = ", and the name of any indicator, as in {adx_14:.1f}" if part == "signal" else ""
    return f"the field {shown} is not known; {guess}known are {', '.join(offered)}{more}"


def _given(name: str, value: Value) -> str | Figure:
    if isinstance(value, Rendered):
        return value
    if isinstance(value, str):
        return quote(value, MAX_CONTEXT_LENGTH)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return time_text(value)
    if value is None or isinstance(value, int | float):
        return Figure(value, number_text(value))
    raise TypeError(f"the field {name!r} takes text, a number, a time, true, false or None, not {type(value).__name__}")
