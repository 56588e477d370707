"""Where the texts of a prompt lie: in a directory of the user's, and built in."""

import re
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path

from trading.errors import SettingsError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
Found = tuple[str, str]


class PromptFiles:
    """The files of one prompt. Raises SettingsError where it has none, or one whose part is not known."""

    def __init__(self, name: str, directory: Path | None, parts: Collection[str]) -> None:
        self._name = name
        self._directory = directory
        if not _NAME.fullmatch(name):
            raise SettingsError([f"llm.prompt = {name!r}: expected letters, digits, '_', '-' and '.'"])
        if directory is not None and not directory.is_dir():
            raise SettingsError([f"llm.prompts_directory = {str(directory)!r}: there is no such directory"])
        theirs = _names(directory) if directory is not None else set()
        built_in = {path.name for path in files(__package__).iterdir()}
        prefix = f"{name}."
        strays = [file for file in sorted(theirs) if file.startswith(prefix) and _part(file) not in parts]
        if strays:
            raise SettingsError([
                f"llm.prompt = {name!r}: {directory}/{file} is no part of a prompt; expected {name}.<part>.txt with "
                f"one of the parts {', '.join(parts)}"
                for file in strays
            ])  # fmt: skip
        if not any(file in theirs | built_in for file in _known(name, parts)):
            there = sorted(_prompts(theirs, parts) | _prompts(built_in, parts))
            where = f" in {directory}" if directory is not None else "; set llm.prompts_directory for your own"
            raise SettingsError([f"llm.prompt = {name!r}: no such prompt{where}; there are {', '.join(there)}"])

    def own(self, part: str) -> Found | None:
        """The part's file and text: the user's, else the built-in of that name; None where there is neither."""
        file = f"{self._name}.{part}.txt"
        if self._directory is not None and (path := self._directory / file).is_file():
            try:
                return str(path), path.read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError([f"llm.prompt = {self._name!r}: {path} cannot be read: {error}"]) from error
        return self.built_in(part, self._name)

    def built_in(self, part: str, *names: str) -> Found | None:
        """The part's file and text of the first of the prompts `names` that is built in and has it."""
        for name in names:
            path = files(__package__).joinpath(f"{name}.{part}.txt")
            if path.is_file():
                return path.name, path.read_text("utf-8")
        return None


def _known(name: str, parts: Collection[str]) -> list[str]:
    return [f"{name}.{part}.txt" for part in parts]


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*.txt")}


def _prompts(names: Collection[str], parts: Collection[str]) -> set[str]:
    return {name.removesuffix(f".{_part(name)}.txt") for name in names if _part(name) in parts}


def _part(file: str) -> str:
    return file.removesuffix(".txt").rpartition(".")[2]
