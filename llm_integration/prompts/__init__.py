"""What models are asked: versioned templates, read once and checked when they are loaded.

A prompt is four files: the system prompt, the question for one signal and for several, and how one signal is shown.
Its version is the content hash of those files and of the reply's schema.
"""

from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from string import Template

from llm_integration.contracts import RATE_SIGNAL, schema_text

SIGNAL_FIELDS = frozenset({
    "number", "source", "symbol", "timeframe", "strategy", "side", "strength", "close_time", "price", "bar_sources",
    "bar_count", "bars", "indicators",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's texts. `version` is the first 12 hex digits of the SHA-256 of everything it is made of."""

    system: str
    single: Template
    batch: Template
    signal: Template
    version: str


def load_prompt(name: str = "rate_signal.v1", schema: str = RATE_SIGNAL) -> Prompt:
    """The prompt of that name. Raises ValueError when a template names a field that it is not given, or lacks one."""
    names = [f"{name}.{part}.txt" for part in ("system", "single", "batch", "signal")]
    texts = [files(__package__).joinpath(file).read_text("utf-8") for file in names]
    system, single, batch, signal = texts
    return Prompt(
        system=system.strip(),
        single=template(single, frozenset({"signals"}), names[1]),
        batch=template(batch, frozenset({"signals", "count"}), names[2]),
        signal=template(signal, SIGNAL_FIELDS, names[3]),
        version=content_version([*texts, schema_text(schema)]),
    )


def template(text: str, fields: frozenset[str], file: str) -> Template:
    """A template that uses exactly `fields`. Raises ValueError otherwise."""
    made = Template(text.strip())
    if not made.is_valid():
        raise ValueError(f"prompt file {file}: a $ stands alone; write $$ for a dollar sign")
    used = frozenset(made.get_identifiers())
    if used != fields:
        unknown, missing = sorted(used - fields), sorted(fields - used)
        raise ValueError(f"prompt file {file}: unknown fields {unknown}, missing fields {missing}")
    return made


def content_version(parts: list[str]) -> str:
    """First 12 hex digits of the SHA-256 over the parts; their borders count."""
    digest = sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()[:12]
