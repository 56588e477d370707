"""DatabaseSettings: where PostgreSQL is, and how long we wait for it."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


class DatabaseSettings(BaseModel):
    """Where everything is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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
    pool_size: int = Field(4, ge=1, le=100, description="Connections this process holds at most.")
    connect_timeout_seconds: float = Field(10.0, gt=0, description="Limit for making one connection.")
    acquire_timeout_seconds: float = Field(30.0, gt=0, description="Limit for waiting on a free connection.")
    command_timeout_seconds: float = Field(30.0, gt=0, description="Limit for one statement.")
    start_timeout_seconds: float = Field(
        600.0, gt=0, description="How long the embedded PostgreSQL may take to start; recovery after a crash is slow."
    )

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url != "embedded" and not url.startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
            raise ValueError('expected "embedded" or postgresql://user:password@host:port/name')
        return url

    @property
    def embedded(self) -> bool:
        """Whether the database is one of our own."""
        return self.url == "embedded"

    @property
    def redacted_url(self) -> str | Literal["embedded"]:
        """The URL as it may be shown."""
        return redacted(self.url)


def redacted(url: str) -> str:
    """A database URL without its password, fit for a log line; "embedded" stays as it is."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    user, colon, _ = parts.netloc.rpartition("@")[0].partition(":")
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{user}:***@{host}" if colon else parts.netloc
    query = "&".join(
        f"{key}=***" if key.lower() in ("password", "passfile", "sslpassword") else pair
        for pair in parts.query.split("&")
        for key in (pair.partition("=")[0],)
    )
    return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))
