"""DatabaseSettings: where PostgreSQL is, and how long we wait for it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

_USER_SECRET = re.compile(r"^([\w+]+://[^:/@?#]*:).*@", re.DOTALL)
_QUERY_SECRET = re.compile(r"([?&](?:password|passfile|sslpassword)=)[^&#]*", re.IGNORECASE)
_HOSTS = re.compile(r"(?:(?:\[[^\]]*\]|[^:,\[\]]*)(?::\d{1,5})?)(?:,(?:\[[^\]]*\]|[^:,\[\]]*)(?::\d{1,5})?)*")
_PORTS = re.compile(r":(\d{1,9})(?=,|$)")
SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


class DatabaseSettings(BaseModel):
    """Where everything is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str = Field(
        "embedded",
        repr=False,
        description='"embedded" runs a PostgreSQL of its own; postgresql://user:password@host/name uses that server.',
    )
    data_directory: Path = Field(
        Path("output/database"), description="Where the embedded PostgreSQL keeps its data, logs and password."
    )
    journal_directory: Path = Field(
        Path("output/journal"), description="Where bars and signals wait on disk until PostgreSQL has them."
    )
    journal_max_mib: int = Field(1024, ge=1, description="Bound of that journal, in MiB; nothing is accepted beyond.")
    journal_strict: bool = Field(
        False, description="Bring each record to the disk before the loop goes on, rather than every 50 ms; slower."
    )
    pool_size: int = Field(4, ge=1, le=100, description="Connections this process holds at most.")
    connect_timeout_seconds: float = Field(10.0, gt=0, description="Limit for making one connection.")
    acquire_timeout_seconds: float = Field(30.0, gt=0, description="Limit for waiting on a free connection.")
    command_timeout_seconds: float = Field(30.0, gt=0, description="Limit for one statement.")
    keep_bars_days: int = Field(
        0,
        ge=0,
        description="Bars older than so many days are dropped, by whole months, once the CSV files have them; 0 keeps "
        "them for ever. The newest of each stream stay.",
    )
    start_timeout_seconds: float = Field(
        600.0,
        gt=0,
        description="How long PostgreSQL is waited for at the start: the embedded one, slow to recover after a crash, "
        "and any other that is away.",
    )

    @field_validator("url")
    @classmethod
    def _usable(cls, url: str) -> str:
        if url == "embedded":
            return url
        if not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
            raise ValueError('expected "embedded" or postgresql://user:password@host:port/name')
        if any(int(port) > 65_535 for port in _PORTS.findall(urlsplit(url).netloc.rpartition("@")[2])):
            raise ValueError("its port is beyond 65535")
        if "#" in url or not _HOSTS.fullmatch(urlsplit(url).netloc.rpartition("@")[2]):
            raise ValueError(
                "the host and port cannot be told apart from the rest; "
                "in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23"
            )
        return url

    @property
    def embedded(self) -> bool:
        """Whether the database is one of our own."""
        return self.url == "embedded"

    @property
    def redacted_url(self) -> str:
        """The URL as it may be shown."""
        return redacted(self.url)


def redacted(url: str) -> str:
    """A database URL without its passwords, fit for a log line; "embedded" stays as it is."""
    return _QUERY_SECRET.sub(r"\1***", _USER_SECRET.sub(r"\1***@", url))
