"""The API's forms: what a signal, a bar and the rest look like in JSON. What is not known is null; times are UTC."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Side = Literal["long", "short", "exit"]
Status = Literal["pending", "processing", "completed", "failed", "expired", "skipped"]
Decision = Literal["allow", "deny", "review"]


class Form(BaseModel):
    """Has these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class SignalItem(Form):
    """A signal and what became of it."""

    signal: str = Field(description="Its id: sig- and a UUID.", pattern="^sig-")
    source: str = Field(description="Where the bar came from.")
    symbol: str = Field(description="The instrument.")
    timeframe: str = Field(description="Length of the bar the signal stands on.")
    close_time: datetime = Field(description="When that bar closed.")
    strategy: str = Field(description="The rule that fired, with its parameters.")
    side: Side
    strength: float = Field(description="How strongly the rule fired, 0 to 1.")
    price: float | None = Field(description="The bar's close.")
    origin: str = Field(
        description="loop for our own strategies; api, tradingview, freqtrade for signals from outside."
    )
    status: Status | None = Field(description="Where the work owed to it stands; null where none is owed.")
    rating: int | None = Field(description="1 strong reject, 3 neutral, 5 strong confirm.", ge=1, le=5)
    confidence: float | None = Field(description="The model's own, 0 to 1.")
    action: str | None = Field(description="What the verdict says to do.")
    rationale: str | None = Field(description="The model's reason, its own words: show it as text only.")
    abstention: str | None = Field(description="Why the reply was not trusted.")
    error: str | None = Field(description="Why there is no reply, or why the last attempt ended.")
    model: str | None = Field(description="The model that answered.")
    fallback: bool | None = Field(description="True when it was not the first choice.")
    cost_usd: float | None = Field(description="Cost over all its calls.")
    processing_ms: float | None = Field(description="From claim to result.")
    finished_at: datetime | None = Field(description="When the result was made.")
    decision: Decision | None = Field(
        description="What policy made of the verdict, or of a reply that was not trusted; null where there is neither."
    )
    decision_reasons: list[str] | None = Field(description="Why, in words: the reasons of the decision first.")


class SignalPage(Form):
    """Signals, newest first."""

    signals: list[SignalItem]
    next_cursor: str | None = Field(description="Ask again with this for what comes after; null at the end.")


class PromptMessage(Form):
    """One chat message."""

    role: str
    content: str


class CallItem(Form):
    """One request to one model."""

    model: str = Field(description="backend/model, as asked.")
    requested_at: datetime
    prompt: list[PromptMessage] = Field(description="Exactly what was sent.")
    reply: str | None = Field(description="Exactly what came back: show it as text only.")
    tokens_in: int | None
    tokens_out: int | None
    cost_usd: float | None
    latency_ms: float = Field(description="From sending to the full reply.")
    error: str | None


class Horizon(Form):
    """What the market did in so many bars after a signal; fractions are of the signal's price."""

    bars: int = Field(description="So many stored bars after the signal: 1, 5, 10, 20 or 60.")
    until: datetime = Field(description="When the last of them closed.")
    close: float = Field(description="The last one's close.")
    forward_return: float = Field(description="close / price - 1: above 0 where the market rose, whatever the side.")
    mfe: float | None = Field(
        description="How far the best of the bars went the signal's way; 0 where none did, null for exits.", ge=0
    )
    mae: float | None = Field(
        description="How far the worst of them went against it, below 0; 0 where none did, null for exits.", le=0
    )


class Outcome(Form):
    """What the market did after a signal, computed from the stored bars when it is asked for."""

    horizons: list[Horizon] = Field(description="Those that have all of their bars, the shortest first.")


class SignalDetail(SignalItem):
    """A signal with all that belongs to it."""

    snapshot: dict[str, Any] = Field(description="Indicators and recent bars as they stood at the close.")
    calls: list[CallItem] = Field(description="The earliest first, 200 at most.")
    outcome: Outcome | None = Field(description="What the market did next; null until a first bar has closed.")


class BarItem(Form):
    """A closed bar."""

    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float | None


class BarPage(Form):
    """Bars of one stream, oldest first."""

    bars: list[BarItem]
    next_cursor: str | None = Field(description="Ask again with this for earlier ones; null where there are none.")


class StreamItem(Form):
    """One source's bars of a symbol and timeframe."""

    source: str
    symbol: str
    timeframe: str
    bars: int | None = Field(description="How many are stored; null where counting them takes more than a second.")
    last_open_time: datetime | None


class Streams(Form):
    """Every stream of bars that is stored."""

    streams: list[StreamItem]


class Latency(Form):
    """From signal to result, milliseconds."""

    p50: float | None
    p95: float | None
    p99: float | None


class ModelStats(Form):
    """One model's results."""

    model: str
    results: int
    ratings: int
    mean_rating: float | None
    abstentions: int
    cost_usd: float | None = Field(description="What is known of it.")
    unknown: int = Field(description="Results whose cost is not known.")
    latency_p50_ms: float | None


class SymbolStats(Form):
    """One symbol's results."""

    symbol: str
    results: int
    ratings: int
    mean_rating: float | None
    abstentions: int
    cost_usd: float | None = Field(description="What is known of it.")


class Stats(Form):
    """What the results since a time came to."""

    since: datetime
    ratings: dict[str, int] = Field(description="How many of each rating, 1 to 5.")
    statuses: dict[str, int] = Field(description="How many results of each status.")
    decisions: dict[Decision, int] = Field(description="How many of each decision.")
    abstentions: dict[str, int] = Field(description="How many of each reason, the 50 most frequent.")
    queue: dict[str, int] = Field(description="Tasks that are not final, now, by status.")
    latency_ms: Latency
    by_model: list[ModelStats] = Field(description="The 50 with most results.")
    by_symbol: list[SymbolStats] = Field(description="The 50 with most results.")


class CostDay(Form):
    """The calls of one UTC day."""

    day: date
    usd: float = Field(description="What is known of their cost.")
    calls: int
    unknown: int = Field(description="Calls that were answered and whose cost is not known.")


class CostModel(Form):
    """One model's calls."""

    model: str
    usd: float
    calls: int
    unknown: int


class Costs(Form):
    """What calls cost, by day and by model."""

    days: list[CostDay] = Field(description="Days with calls, the earliest first.")
    today_usd: float
    budget_usd: float | None = Field(description="The day's budget; null where none is set.")
    by_model: list[CostModel] = Field(description="The dearest first.")
