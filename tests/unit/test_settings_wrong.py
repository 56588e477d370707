"""Settings as nobody should write them: every one is refused in a line that says where, what, and what to do."""

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from llm_integration.settings_file import odd_things, read_settings_file
from service.rules import require_rules
from service.settings import Settings
from trading.errors import SettingsError

HIDDEN = "hidden-word"
JsonText = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and an environment without settings of ours."""
    for name in list(os.environ):
        if name.upper().startswith(("TRADENT_", "DATABASE_URL", "CREDENTIALS_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistakes(*assignments: str, content: bytes | str = "{}") -> list[str]:
    """The lines that the settings are refused with."""
    Path("config.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SettingsError) as told:
        require_rules(Settings.load(Path("config.json"), list(assignments)))
    return str(told.value).splitlines()


def feed(**options: Any) -> str:
    return json.dumps({"trading": {"feed": {"type": "simulated", **options}}})


FILES: dict[str, tuple[bytes | str, str]] = {
    "empty": ("", "is empty; write {} into it for the defaults"),
    "blank": (" \n\t\n", "is empty; write {} into it"),
    "UTF-16": ("{}".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-be"), "line 1, column 1: "),
    "Latin-1": (b'{"llm": {"model": "\xe9"}}', "is not UTF-8 text; save it as UTF-8"),
    "a comma too many": ('{"llm": {"batch_size": 2,\n}}', "there is a comma before the }; take it out"),
    "a comment": ('{\n// why\n"llm": {}}', "line 2, column 1: JSON has no comments; take it out"),
    "single quotes": ("{'llm': {}}", "line 1, column 2: a text stands in double quotes"),
    "two documents": ("{}{}", "line 1, column 3: Extra data"),
    "a list": ("[]", "expected a JSON object of settings at the top"),
    "nothing": ("null", "expected a JSON object of settings at the top"),
    "a control character": (b'{"a": "\x1b[31m"}', "line 1, column 8: Invalid control character"),
    "a key twice": ('{"llm": {"max_tokens": 20,\n"max_tokens": 30}}', "line 2: llm.max_tokens is set twice; keep one"),
    "a section twice": ('{"llm": {},\n\n"llm": {}}', "line 3: llm is set twice; keep one of them"),
    "a key twice, written apart": ('{"llm": 1, "\\u006clm": 1}', "line 1: llm is set twice; keep one of them"),
    "no number": ('{"llm": {\n"poll_interval": NaN}}', "line 2: llm.poll_interval: NaN is no number"),
    "no end": ('{"llm": {"poll_interval": -Infinity}}', "line 1: llm.poll_interval: -Infinity is no number"),
    "an exponent": ('{"llm": {"poll_interval": 1e999}}', "line 1: llm.poll_interval: 1e999 is too large a number"),
    "5000 digits": ('{"llm": {"max_tokens": %s}}' % ("9" * 5000), "line 1: llm.max_tokens: 99999"),
    "deep lists": ("[" * 100_000, "is nested too deeply to be settings"),
    "deep objects": ('{"a":' * 100_000, "is nested too deeply to be settings"),
    "too much": ('{"llm": {"model": "%s"}}' % ("x" * (4 << 20)), "is larger than 4 MiB, so it is no settings file"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_not_settings_is_one_short_line(folder: Path, case: str) -> None:
    content, said = FILES[case]
    (line,) = mistakes(content=content)
    assert line.startswith("config.json: ")
    assert said in line
    assert len(line) < 200


VALUES: dict[str, tuple[str, list[str]]] = {
    "300 digits": (
        '{"llm": {"max_tokens": %s}}' % ("9" * 300), ["llm.max_tokens = a number of 300 digits: expected a number of"],
    ),
    "a limit of ages": (
        '{"llm": {"timeout_seconds": 1e300}}', ["llm.timeout_seconds = 1e+300: expected a finite number of at most"],
    ),
    "a NUL in a path": (
        r'{"llm": {"csv_output_directory": "a\u0000b"}}',
        [r"llm.csv_output_directory = 'a\x00b': holds a control character; take it out"],
    ),
    "a line in a model": (r'{"llm": {"model": "openai/x\ny"}}', [r"llm.model = 'openai/x\ny': holds a control char"]),
    "a model of blanks": ('{"llm": {"model": "openai/  "}}', ["llm.model = 'openai/  ': expected backend/model"]),
    "half a character": (
        r'{"llm": {"model": "openai/\ud800"}}', [r"llm.model = 'openai/\ud800': holds a control character"],
    ),
    "a key that is not to be seen": (
        r'{"llm": {"mo\u001b[31mdel\n": 1}}', [r"llm.mo\x1b[31mdel\n: there is no such key; did you mean model?"],
    ),
    "other letters": ('{"llm": {"BATCH_SIZE": 1}}', ["llm.BATCH_SIZE: there is no such key; did you mean batch_size?"]),
    "a feed's slip": (feed(sped=1), ["trading.feed.sped: simulated has no such key; did you mean speed or seed?"]),
    "a strategy's slip": (
        '{"trading": {"strategies": [{"type": "ma_cross", "fsat": 9}]}}',
        ["trading.strategies.0.fsat: ma_cross has no such key; did you mean fast?"],
    ),
    "a section's slip": ('{"databse": {}}', ["databse: there is no such key; did you mean database?"]),
    "a section of nothing": ('{"llm": null}', ['llm = None: expected an object, such as {"key": "value"}']),
    "a list of one": (feed(symbols="A"), ["trading.feed.symbols = 'A': expected a list, such as [\"a\", \"b\"]"]),
    "an empty name in a list": (feed(symbols=["A", ""]), ["trading.feed.symbols.1 = '': String should have at least"]),
    "only an empty name": (feed(symbols=[""]), ["trading.feed.symbols.0 = '': String should have at least 1"]),
    "no names": (feed(symbols=[]), ["trading.feed.symbols: Tuple should have at least 1 item"]),
    "a line in a name": (feed(symbols=["A\nB"]), [r"trading.feed.symbols.0 = 'A\nB': holds a control character"]),
    "no speed": (feed(speed=0), ["trading.feed.speed = 0: Input should be greater than 0, or 'max'"]),
    "a slow average that is the fast one": (
        '{"trading": {"strategies": [{"type": "ma_cross", "fast": 30, "slow": 30}]}}',
        ["trading.strategies.0: fast (30) must be less than slow (30)"],
    ),
    "years of keeping": ('{"llm": {"audit": {"keep_days": 1000000000}}}', ["llm.audit.keep_days = 1000000000: "]),
    "any interface by nothing": ('{"service": {"host": ""}}', ["service.host = '': "]),
    "a time format": (
        '{"trading": {"feed": {"type": "replay", "path": "x", "timestamp_format": "%Q"}}}',
        ["trading.feed.timestamp_format = '%Q': "],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_cannot_be_meant_is_one_line(folder: Path, case: str) -> None:
    content, expected = VALUES[case]
    lines = mistakes(content=content)
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


SET: dict[str, str] = {
    "llm": "--set llm: expected section.key=value",
    ".=1": "--set .=1: expected section.key=value",
    "llm.=1": "--set llm.=1: expected section.key=value",
    "llm..batch_size=1": "--set llm..batch_size=1: expected section.key=value",
    "llm=": 'llm: expected an object, such as {"key": "value"}',
    "llm.poll_interval=NaN": "--set llm.poll_interval: NaN is no number",
    "llm.poll_interval=inf": "llm.poll_interval = inf: expected a finite number of at most 1000000000",
    'llm={"a": 1, "a": 2}': "--set llm: a is set twice; keep one of them",
    "llm=" + "[" * 100_000: "--set llm: is nested too deeply",
    "trading.strategies.0.type=ma_cross": 'trading.strategies: expected a list, such as ["a", "b"]; a list is',
    "llm.fallback_models=rules/baseline": "llm.fallback_models = 'rules/baseline': expected a list, such as [",
}


@pytest.mark.parametrize("given", SET)
def test_a_wrong_set_says_what_was_expected(folder: Path, given: str) -> None:
    (line,) = mistakes(given)
    assert line.startswith(SET[given])


VARIABLES: dict[str, tuple[str, str]] = {
    "TRADENT_LLM_BATCH_SIZE": ("3", "TRADENT_LLM_BATCH_SIZE: there is no such key; expected TRADENT_LLM__BATCH_SIZE"),
    "TRADENT_": ("1", "TRADENT_: there is no such key; expected TRADENT_<section>__<key>"),
    "TRADENT_LLM__MODLE": ("x", "llm.modle: there is no such key; did you mean model?"),
    "TRADENT_LLM__POLL_INTERVAL": ("inf", "llm.poll_interval = inf: expected a finite number"),
    "TRADENT_LLM__FALLBACK_MODELS": ("[" * 100_000, "a variable whose name begins with TRADENT_ is nested too deeply"),
    "TRADENT_LLM__BATCH_SIZE__X": ("1", "llm.batch_size: Input should be a valid integer"),
    "TRADENT_LLM__BACKENDS__OPENAI": (HIDDEN, 'llm.backends.openai: expected an object, such as {"key": "value"}'),
    "CREDENTIALS_DIRECTORY": ("/no/where", "CREDENTIALS_DIRECTORY: /no/where: there is no such directory; unset it"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_wrong_variable_says_what_was_expected(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, said = VARIABLES[name]
    monkeypatch.setenv(name, value)
    (line,) = mistakes()
    assert line.startswith(said)
    assert HIDDEN not in line


CREDENTIALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "cannot be read: it is no file"),
    "a pipe": (os.mkfifo, "cannot be read: it is no file"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read: it is not UTF-8 text"),
    "too much": (lambda path: path.write_bytes(b"x" * ((1 << 20) + 1)), "cannot be read: it is larger than 1 MiB"),
    "a loop": (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "cannot be read: it is a link to nothing"),
}


@pytest.mark.parametrize("case", CREDENTIALS)
def test_a_credential_that_is_none_is_named_and_not_waited_for(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = CREDENTIALS[case]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    Path("credentials").mkdir()
    make(Path("credentials", "TRADENT_LLM__MODEL"))
    assert mistakes() == [f"credentials/TRADENT_LLM__MODEL: {said}"]


def test_a_credential_that_is_closed_to_the_account_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a secret of the compose file made with a umask of 077: its account in the container is another."""
    credential = Path("credentials", "TRADENT_LLM__MODEL")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    Path("credentials").mkdir()
    credential.write_text("rules/baseline")
    opened = Path.open

    def shut(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == credential:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", shut)

    assert mistakes() == [f"{credential}: cannot be read: let the account that runs this read it"]


def test_what_is_no_setting_in_the_credentials_directory_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of other programs may lie there, binary or large; a stray of ours is a mistake as in the environment."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "credentials")
    Path("credentials").mkdir()
    Path("credentials", "server.key").write_bytes(b"\xff" * 2_000_000)
    Path("config.json").write_text("{}")
    Settings.load(Path("config.json"))
    Path("credentials", "TRADENT_LMM__MODEL").write_text("x")
    assert mistakes() == ["TRADENT_LMM__MODEL: there is no such key; expected TRADENT_<section>__<key>"]


def test_a_thousand_mistakes_are_fifty_lines_and_a_count(folder: Path) -> None:
    lines = mistakes(content=json.dumps({f"k{number}": 1 for number in range(1000)}))
    assert (len(lines), lines[-1]) == (51, "and 950 mistakes more")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes with names")
def test_a_pipe_is_read_once(folder: Path) -> None:
    """As in `--config <(make-settings)`."""
    inlet, outlet = os.pipe()
    os.write(outlet, b'{"llm": {"batch_size": 7}}')
    os.close(outlet)
    assert Settings.load(Path(f"/dev/fd/{inlet}")).llm.batch_size == 7
    os.close(inlet)


def finite(made: Any) -> bool:
    """Whether every number in it is one; a text may well be "NaN"."""
    try:
        json.dumps(made, allow_nan=False)
    except ValueError:
        return False
    return True


@example_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)
@given(st.dictionaries(st.text(max_size=6), JsonText, max_size=4))
def test_any_object_is_read_as_json_reads_it(tmp_path: Path, made: dict[str, Any]) -> None:
    """Nothing is found odd in what has no key twice and no number that is none."""
    path = tmp_path / "config.json"
    text = json.dumps(made, indent=1)
    path.write_text(text, encoding="utf-8")
    if not finite(made):
        with pytest.raises(SettingsError, match="is no number"):
            read_settings_file(path)
    else:
        assert read_settings_file(path) == json.loads(text)


@given(st.text(max_size=6), st.text(max_size=6), st.integers(0, 3))
def test_a_key_that_is_there_twice_is_found_at_any_depth(key: str, other: str, depth: int) -> None:
    inner = f"{{{json.dumps(key)}: {{{json.dumps(other)}: 1}},\n{json.dumps(key, ensure_ascii=False)}: 2}}"
    text = '{"a": [0, ' * depth + inner + "]}" * depth
    path = ".".join(["a"] * depth + ([key] if key else []))
    assert list(odd_things(text)) == [f"line 2: {path} is set twice; keep one of them"]
