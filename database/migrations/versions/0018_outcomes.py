"""What the market did after each signal: a view over the bars, so that it follows what is stored."""

from importlib import import_module

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

views = import_module("database.migrations.versions.0002_views")

VIEW = "v_signal_outcomes"
# Old bars are dropped, signals are not: where no bar is left from before a signal, those right after it may be gone
# too. Nothing is a fraction of a price of 0 or below.
# The limit of 60 is for the planner, which would take h.bars for a tenth of the stream. `first` is compared within the
# span, not in a join, so that it is read once for each stream and not for each signal.
OUTCOMES = """
SELECT
    s.id AS signal_id,
    h.bars,
    span.until,
    span.close,
    span.close / s.price - 1 AS forward_return,
    CASE s.side
        WHEN 'long' THEN greatest(span.high / s.price - 1, 0)
        WHEN 'short' THEN greatest(1 - span.low / s.price, 0)
    END AS mfe,
    CASE s.side
        WHEN 'long' THEN least(span.low / s.price - 1, 0)
        WHEN 'short' THEN least(1 - span.high / s.price, 0)
    END AS mae
FROM signals s
CROSS JOIN (VALUES (1), (5), (10), (20), (60)) h (bars)
CROSS JOIN LATERAL (
    SELECT m.open_time FROM market_data m
    WHERE m.source = s.source AND m.symbol = s.symbol AND m.timeframe = s.timeframe
    ORDER BY m.open_time
    LIMIT 1
) first
CROSS JOIN LATERAL (
    SELECT count(*) AS bars, max(bar.close_time) AS until, max(bar.high) AS high, min(bar.low) AS low,
           (array_agg(bar.close ORDER BY bar.open_time))[h.bars] AS close
    FROM (
        SELECT * FROM (
            SELECT m.open_time, m.close_time, m.high, m.low, m.close FROM market_data m
            WHERE m.source = s.source AND m.symbol = s.symbol AND m.timeframe = s.timeframe
              AND m.open_time >= s.close_time AND first.open_time < s.close_time
            ORDER BY m.open_time
            LIMIT 60
        ) next
        ORDER BY next.open_time
        LIMIT h.bars
    ) bar
) span
WHERE s.price > 0 AND span.bars = h.bars
"""
SAID = (
    "What the market did after each signal, rated or not: one row per signal and horizon that has all of its bars. "
    "Computed from the bars as it is read. Where the bars around a signal are no longer kept it has none."
)
COLUMNS = {
    "signal_id": "The signal, in signals.",
    "bars": "The horizon: so many stored bars after the signal, of its source, symbol and timeframe; 1, 5, 10, 20, 60.",
    "until": "When the last of them closed, UTC; later than so many bars take where some are missing.",
    "close": "The last one's close.",
    "forward_return": "close / price - 1: the market's own, above 0 where it rose, whatever the side.",
    "mfe": "Maximum favourable excursion: how far the best of the bars went the signal's way, as a fraction of its "
    "price, never below 0. Null for exits, which state no direction.",
    "mae": "Maximum adverse excursion: how far the worst of them went against it, as a fraction that is never above 0. "
    "Null for exits.",
}


def upgrade() -> None:
    op.execute(f"CREATE VIEW {VIEW} AS{OUTCOMES.rstrip()}")
    op.execute(f"COMMENT ON VIEW {VIEW} IS {views.quoted(SAID)}")
    for column, text in COLUMNS.items():
        op.execute(f"COMMENT ON COLUMN {VIEW}.{column} IS {views.quoted(text)}")


def downgrade() -> None:
    op.execute(f"DROP VIEW {VIEW}")
