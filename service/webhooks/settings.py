"""Settings of the webhooks that verdicts are sent to."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from llm_integration.model import DecisionKind
from service.webhooks.templates import event_of, template, template_names
from trading.model import Side

SECRET_HOSTS = ("discord.com", "discordapp.com", "hooks.slack.com", "api.telegram.org")
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"


class WebhookSettings(BaseModel):
    """A webhook that verdicts are sent to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="What the log and the tables call it.")
    template: str = Field("generic", description="generic, discord, slack, telegram or freqtrade.")
    url: str | None = Field(None, description="Where to post; an address that is a secret belongs into url_env.")
    url_env: str | None = Field(
        None, pattern=VARIABLE, description="The variable, or credential, that holds the address."
    )
    secret_env: str | None = Field(
        None, pattern=VARIABLE, description="The one that holds the secret to sign with: whsec_ and base64."
    )
    authorization_env: str | None = Field(
        None, pattern=VARIABLE, description="The one that holds what the Authorization header is to say."
    )
    chat_id: str | None = Field(None, description="Telegram's chat.")
    events: tuple[Literal["verdict", "abstention", "failure"], ...] = Field(
        ("verdict",), min_length=1, description="Ratings, replies that were not trusted, signals without a reply."
    )
    min_rating: int | None = Field(None, ge=1, le=5, description="The least rating that is told.")
    decisions: tuple[DecisionKind, ...] = Field((), description="Only what policy decided so; none named: all.")
    sides: tuple[Side, ...] = Field((), description="Only these sides; none named: all.")
    symbols: tuple[str, ...] = Field((), description="Only these symbols; none named: all.")
    max_attempts: int = Field(12, ge=1, le=100, description="How often one is sent before it is given up.")
    timeout_seconds: float = Field(10.0, gt=0, le=60, description="How long an answer may take.")

    @field_validator("template")
    @classmethod
    def _there_is_such_a_template(cls, name: str) -> str:
        if name not in template_names():
            raise ValueError(f"expected one of {', '.join(template_names())}")
        return name

    @field_validator("url")
    @classmethod
    def _is_no_secret(cls, url: str | None) -> str | None:
        if url is not None:
            parts = require_url(url)
            host = (parts.hostname or "").lower()
            if parts.username or parts.password or host in SECRET_HOSTS or host.endswith(".webhook.office.com"):
                raise ValueError("holds a secret: put it into a variable, and name that as url_env")
        return url

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("name either url or url_env")
        if (self.template == "telegram") != (self.chat_id is not None):
            raise ValueError("chat_id belongs to the template telegram, and is needed there")
        if self.template == "freqtrade" and ((self.min_rating or 0) < 4 or self.events != ("verdict",)):
            raise ValueError("freqtrade enters what it is told: set min_rating to 4 or 5, and events to verdict alone")
        return self

    def wants(self, item: Any) -> bool:
        """Whether a signal with its result is told to this webhook."""
        event = event_of(item)
        if event not in self.events or (event == "verdict" and (item["rating"] or 0) < (self.min_rating or 0)):
            return False
        told_by = template(self.template)
        can_tell, decisions = getattr(told_by, "SIDES", None), getattr(told_by, "DECISIONS", None)
        return (
            (not self.decisions or item.get("decision") in self.decisions)
            and (decisions is None or item.get("decision") in decisions)
            and (not self.sides or item["side"] in self.sides)
            and (can_tell is None or item["side"] in can_tell)
            and (not self.symbols or item["symbol"] in self.symbols)
        )


def require_url(url: str) -> Any:
    """The parts of an http(s) address. Raises ValueError, which does not show it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not url.isprintable() or " " in url:
        raise ValueError("expected an address such as https://example.com/hook")
    return parts
