"""The tokens that open the HTTP API, and what each may do."""

import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from hashlib import sha256

from llm_integration.settings_sources import secret
from trading.errors import SettingsError

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
_EXPECTED = "expected 16 to 512 letters, digits and . _ ~ + / = -, such as `openssl rand -hex 32` prints"


class Scope(StrEnum):
    """What a request wants to do: look, hand in signals, or steer the daemon."""

    READ = "read"
    SIGNAL = "signal"
    ADMIN = "admin"


TOKEN_NAMES = {scope: f"TRADENT_{scope.upper()}_TOKEN" for scope in Scope}


@dataclass(frozen=True)
class Tokens:
    """The token of each scope, None where there is none. The admin token is good for everything."""

    read: str | None = None
    signal: str | None = None
    admin: str | None = None

    @classmethod
    def given(cls) -> "Tokens":
        """Those of the environment, else of the credentials directory. Raises SettingsError for unfit ones."""
        found = {scope: secret(name) for scope, name in TOKEN_NAMES.items()}
        mistakes = [
            f"{TOKEN_NAMES[scope]}: is no token; {_EXPECTED}"
            for scope, token in found.items()
            if token is not None and not _TOKEN.fullmatch(token)
        ]
        present = [token for token in found.values() if token is not None]
        if len(set(present)) < len(present):
            mistakes.append(f"{', '.join(TOKEN_NAMES.values())}: two are the same; give each scope a token of its own")
        if mistakes:
            raise SettingsError(mistakes)
        return cls(**{scope.value: token for scope, token in found.items()})

    def __repr__(self) -> str:
        return f"Tokens(of {', '.join(self._by_scope) or 'no scope'})"

    def __bool__(self) -> bool:
        return bool(self._by_scope)

    @property
    def all(self) -> list[str]:
        """Every token there is."""
        return list(self._by_scope.values())

    @cached_property
    def _by_scope(self) -> dict[Scope, str]:
        return {scope: token for scope in Scope if (token := getattr(self, scope.value)) is not None}

    @cached_property
    def _digests(self) -> list[tuple[Scope, bytes]]:
        return [(scope, sha256(token.encode()).digest()) for scope, token in self._by_scope.items()]

    def scope_of(self, token: str) -> Scope | None:
        """Which of them this is, None where it is none. Takes the same time whichever it is not."""
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for scope, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = scope
        return found

    def headers(self, scope: Scope) -> dict[str, str]:
        """What a request of this scope sends along; nothing where there is no token that would do."""
        token = self._by_scope.get(scope) or self.admin
        return {} if token is None else {"Authorization": f"Bearer {token}"}
