-- The schema of Tradent, up to revision 0007. Generated from database/migrations by
-- `python -m database.schema_sql --write`; do not edit.
--
-- For an empty database: psql -v ON_ERROR_STOP=1 -d NAME -f llm_schema_updates.sql
-- All or nothing: it is one transaction. The program finds the schema up to date afterwards.

BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

COMMENT ON TABLE alembic_version IS 'The migration this schema is at; kept by alembic.';

COMMENT ON COLUMN alembic_version.version_num IS 'Its revision.';

CREATE TABLE market_data (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    source TEXT NOT NULL,
    symbol TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    open_time TIMESTAMP WITH TIME ZONE NOT NULL,
    close_time TIMESTAMP WITH TIME ZONE NOT NULL,
    open NUMERIC NOT NULL,
    high NUMERIC NOT NULL,
    low NUMERIC NOT NULL,
    close NUMERIC NOT NULL,
    volume NUMERIC,
    indicators JSONB NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT pk_market_data PRIMARY KEY (id),
    CONSTRAINT uq_market_data_source_symbol_timeframe_open_time UNIQUE (source, symbol, timeframe, open_time)
);

COMMENT ON TABLE market_data IS 'One row per closed bar. Bars of one source, symbol and timeframe are stored in order, each once.';

COMMENT ON COLUMN market_data.id IS 'Row number, in order of writing.';

COMMENT ON COLUMN market_data.source IS 'The feed''s name for itself: simulated, replay, an exchange.';

COMMENT ON COLUMN market_data.symbol IS 'The instrument, as the feed names it.';

COMMENT ON COLUMN market_data.timeframe IS 'Length of the bar: 1m, 5m, 1h, 1d.';

COMMENT ON COLUMN market_data.open_time IS 'When the bar opened, UTC.';

COMMENT ON COLUMN market_data.close_time IS 'When the bar closed, UTC.';

COMMENT ON COLUMN market_data.open IS 'First price, in the quote currency.';

COMMENT ON COLUMN market_data.high IS 'Highest price.';

COMMENT ON COLUMN market_data.low IS 'Lowest price.';

COMMENT ON COLUMN market_data.close IS 'Last price.';

COMMENT ON COLUMN market_data.volume IS 'Traded amount in the base currency; null where the source has none.';

COMMENT ON COLUMN market_data.indicators IS 'Indicator name to value at the close; null before warm-up.';

COMMENT ON COLUMN market_data.received_at IS 'When the loop handled the bar.';

COMMENT ON COLUMN market_data.stored_at IS 'When the row was written.';

COMMENT ON COLUMN market_data.xid IS 'Transaction that wrote the row; what exporters follow.';

CREATE INDEX ix_market_data_xid_id ON market_data (xid, id);

CREATE TABLE signals (
    id UUID NOT NULL,
    source TEXT NOT NULL,
    symbol TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    close_time TIMESTAMP WITH TIME ZONE NOT NULL,
    strategy TEXT NOT NULL,
    side TEXT NOT NULL,
    strength DOUBLE PRECISION NOT NULL,
    price NUMERIC NOT NULL,
    snapshot JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT pk_signals PRIMARY KEY (id),
    CONSTRAINT ck_signals_side CHECK (side IN ('long', 'short', 'exit')),
    CONSTRAINT ck_signals_strength CHECK (strength BETWEEN 0 AND 1)
);

COMMENT ON TABLE signals IS 'One row per signal: a strategy''s event on a closed bar.';

COMMENT ON COLUMN signals.id IS 'UUIDv5 of source, symbol, timeframe, close time, strategy, side.';

COMMENT ON COLUMN signals.source IS 'Where the bar came from.';

COMMENT ON COLUMN signals.symbol IS 'The instrument.';

COMMENT ON COLUMN signals.timeframe IS 'Length of the bar the signal stands on.';

COMMENT ON COLUMN signals.close_time IS 'When that bar closed, UTC.';

COMMENT ON COLUMN signals.strategy IS 'The rule that fired, with its parameters.';

COMMENT ON COLUMN signals.side IS 'long, short or exit.';

COMMENT ON COLUMN signals.strength IS 'How strongly the rule fired, 0 to 1.';

COMMENT ON COLUMN signals.price IS 'The bar''s close.';

COMMENT ON COLUMN signals.snapshot IS 'Indicators and recent bars as they stood at the close.';

COMMENT ON COLUMN signals.created_at IS 'When the loop made the signal.';

COMMENT ON COLUMN signals.stored_at IS 'When the row was written.';

COMMENT ON COLUMN signals.xid IS 'Transaction that wrote the row; what exporters follow.';

CREATE INDEX ix_signals_source_symbol_timeframe_close_time ON signals (source, symbol, timeframe, close_time);

CREATE INDEX ix_signals_created_at ON signals (created_at);

CREATE TABLE llm_enhancement_tasks (
    signal_id UUID NOT NULL,
    status TEXT DEFAULT 'pending' NOT NULL,
    priority SMALLINT DEFAULT 0 NOT NULL,
    run_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    attempts INTEGER DEFAULT 0 NOT NULL,
    token BIGINT DEFAULT 0 NOT NULL,
    worker TEXT,
    lease_expires_at TIMESTAMP WITH TIME ZONE,
    last_error TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_llm_enhancement_tasks PRIMARY KEY (signal_id),
    CONSTRAINT ck_llm_enhancement_tasks_status CHECK (status IN ('pending','processing','completed','failed','expired','skipped')),
    CONSTRAINT fk_llm_enhancement_tasks_signal_id FOREIGN KEY(signal_id) REFERENCES signals (id) ON DELETE CASCADE
)
 WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

COMMENT ON TABLE llm_enhancement_tasks IS 'The queue: the work owed to each signal.';

COMMENT ON COLUMN llm_enhancement_tasks.signal_id IS 'The signal the work is owed to.';

COMMENT ON COLUMN llm_enhancement_tasks.status IS 'pending, processing; completed, failed, expired, skipped are final.';

COMMENT ON COLUMN llm_enhancement_tasks.priority IS 'Higher goes first.';

COMMENT ON COLUMN llm_enhancement_tasks.run_at IS 'Not to be claimed before.';

COMMENT ON COLUMN llm_enhancement_tasks.expires_at IS 'Not to be rated after; null is never.';

COMMENT ON COLUMN llm_enhancement_tasks.attempts IS 'How often it has been claimed.';

COMMENT ON COLUMN llm_enhancement_tasks.token IS 'Fence: a result is taken only from the claim that holds the latest.';

COMMENT ON COLUMN llm_enhancement_tasks.worker IS 'Who claimed it last.';

COMMENT ON COLUMN llm_enhancement_tasks.lease_expires_at IS 'Until when the claim holds, on the database''s clock.';

COMMENT ON COLUMN llm_enhancement_tasks.last_error IS 'Why the last attempt did not finish.';

COMMENT ON COLUMN llm_enhancement_tasks.created_at IS 'When the task was written.';

COMMENT ON COLUMN llm_enhancement_tasks.finished_at IS 'When it became final.';

CREATE INDEX ix_llm_enhancement_tasks_pending ON llm_enhancement_tasks (priority DESC, run_at, signal_id) WHERE status = 'pending';

CREATE INDEX ix_llm_enhancement_tasks_processing ON llm_enhancement_tasks (signal_id) WHERE status = 'processing';

CREATE TABLE llm_analysis_results (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    signal_id UUID NOT NULL,
    status TEXT NOT NULL,
    rating SMALLINT,
    confidence DOUBLE PRECISION,
    action TEXT,
    rationale TEXT,
    risks TEXT[],
    regime TEXT,
    abstention TEXT,
    error TEXT,
    model TEXT,
    answered_model TEXT,
    fallback BOOLEAN DEFAULT false NOT NULL,
    prompt_version TEXT,
    rung TEXT,
    repaired BOOLEAN DEFAULT false NOT NULL,
    attempts INTEGER NOT NULL,
    call_id UUID,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd NUMERIC,
    processing_ms DOUBLE PRECISION,
    finished_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    CONSTRAINT pk_llm_analysis_results PRIMARY KEY (id),
    CONSTRAINT ck_llm_analysis_results_status CHECK (status IN ('completed','failed','expired','skipped')),
    CONSTRAINT ck_llm_analysis_results_rating CHECK (rating BETWEEN 1 AND 5),
    CONSTRAINT ck_llm_analysis_results_confidence CHECK (confidence BETWEEN 0 AND 1),
    CONSTRAINT uq_llm_analysis_results_signal_id UNIQUE (signal_id),
    CONSTRAINT fk_llm_analysis_results_signal_id FOREIGN KEY(signal_id) REFERENCES signals (id) ON DELETE CASCADE
);

COMMENT ON TABLE llm_analysis_results IS 'The final result of each signal''s task.';

COMMENT ON COLUMN llm_analysis_results.id IS 'Row number, in order of writing.';

COMMENT ON COLUMN llm_analysis_results.signal_id IS 'The signal; each has exactly one final result.';

COMMENT ON COLUMN llm_analysis_results.status IS 'completed, failed, expired or skipped.';

COMMENT ON COLUMN llm_analysis_results.rating IS '1 strong reject, 3 neutral, 5 strong confirm; null when none was stated.';

COMMENT ON COLUMN llm_analysis_results.confidence IS 'The model''s own, 0 to 1; null when none was stated.';

COMMENT ON COLUMN llm_analysis_results.action IS 'enter_long, enter_short, exit, hold, move_to_breakeven, enable/disable_trailing.';

COMMENT ON COLUMN llm_analysis_results.rationale IS 'The model''s reason, its own words.';

COMMENT ON COLUMN llm_analysis_results.risks IS 'Risks the model named.';

COMMENT ON COLUMN llm_analysis_results.regime IS 'The market regime the model named.';

COMMENT ON COLUMN llm_analysis_results.abstention IS 'Why a reply was not trusted; null when there is a verdict.';

COMMENT ON COLUMN llm_analysis_results.error IS 'Why there is no reply, for failed, expired and skipped.';

COMMENT ON COLUMN llm_analysis_results.model IS 'Model string that was asked and answered: backend/model.';

COMMENT ON COLUMN llm_analysis_results.answered_model IS 'The model that the reply names, where it names one.';

COMMENT ON COLUMN llm_analysis_results.fallback IS 'True when it was not the first choice that answered.';

COMMENT ON COLUMN llm_analysis_results.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN llm_analysis_results.rung IS 'The parser''s step that read the reply.';

COMMENT ON COLUMN llm_analysis_results.repaired IS 'True when JSON was mended.';

COMMENT ON COLUMN llm_analysis_results.attempts IS 'Claims it took.';

COMMENT ON COLUMN llm_analysis_results.call_id IS 'The call that gave the reply, in llm_calls.';

COMMENT ON COLUMN llm_analysis_results.prompt_tokens IS 'Input tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN llm_analysis_results.completion_tokens IS 'Output tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN llm_analysis_results.cost_usd IS 'Cost over all calls, USD; null when any is unknown.';

COMMENT ON COLUMN llm_analysis_results.processing_ms IS 'From claim to result, milliseconds; null when no attempt came to an end.';

COMMENT ON COLUMN llm_analysis_results.finished_at IS 'When the result was made.';

COMMENT ON COLUMN llm_analysis_results.stored_at IS 'When the row was written.';

COMMENT ON COLUMN llm_analysis_results.xid IS 'Transaction that wrote the row; what exporters follow.';

CREATE INDEX ix_llm_analysis_results_xid_id ON llm_analysis_results (xid, id);

CREATE TABLE llm_calls (
    id UUID NOT NULL,
    signal_ids UUID[] NOT NULL,
    backend TEXT NOT NULL,
    model TEXT NOT NULL,
    answered_model TEXT,
    attempt INTEGER NOT NULL,
    prompt_version TEXT NOT NULL,
    messages JSONB NOT NULL,
    parameters JSONB NOT NULL,
    reply TEXT,
    reply_id TEXT,
    finish_reason TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd NUMERIC,
    queue_wait_ms DOUBLE PRECISION NOT NULL,
    latency_ms DOUBLE PRECISION NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE NOT NULL,
    http_status SMALLINT,
    error_class TEXT,
    error TEXT,
    CONSTRAINT pk_llm_calls PRIMARY KEY (id)
);

COMMENT ON TABLE llm_calls IS 'Every request to a model, failed ones too: the audit trail, and what the quota remembers at start.';

COMMENT ON COLUMN llm_calls.id IS 'The call.';

COMMENT ON COLUMN llm_calls.signal_ids IS 'The signals it asked about.';

COMMENT ON COLUMN llm_calls.backend IS 'First part of the model string.';

COMMENT ON COLUMN llm_calls.model IS 'The rest of it, as it went on the wire.';

COMMENT ON COLUMN llm_calls.answered_model IS 'The model that the reply names.';

COMMENT ON COLUMN llm_calls.attempt IS 'Which try of its request it was, from 1.';

COMMENT ON COLUMN llm_calls.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN llm_calls.messages IS 'Exactly what was sent.';

COMMENT ON COLUMN llm_calls.parameters IS 'Temperature, token bound and the like.';

COMMENT ON COLUMN llm_calls.reply IS 'Exactly what came back.';

COMMENT ON COLUMN llm_calls.reply_id IS 'The provider''s id of the reply.';

COMMENT ON COLUMN llm_calls.finish_reason IS 'Why the model stopped.';

COMMENT ON COLUMN llm_calls.prompt_tokens IS 'Input tokens as reported; null when not.';

COMMENT ON COLUMN llm_calls.completion_tokens IS 'Output tokens as reported; null when not.';

COMMENT ON COLUMN llm_calls.cost_usd IS 'Cost as reported, USD; null when not.';

COMMENT ON COLUMN llm_calls.queue_wait_ms IS 'Time spent waiting for the quota, milliseconds.';

COMMENT ON COLUMN llm_calls.latency_ms IS 'From sending to the full reply, milliseconds.';

COMMENT ON COLUMN llm_calls.started_at IS 'When it was sent.';

COMMENT ON COLUMN llm_calls.finished_at IS 'When it ended.';

COMMENT ON COLUMN llm_calls.http_status IS 'HTTP status, where there was one.';

COMMENT ON COLUMN llm_calls.error_class IS 'Class of the failure; null when it succeeded.';

COMMENT ON COLUMN llm_calls.error IS 'What went wrong.';

CREATE INDEX ix_llm_calls_signal_ids ON llm_calls USING gin (signal_ids);

CREATE INDEX ix_llm_calls_backend_finished_at ON llm_calls (backend, finished_at);

CREATE TABLE csv_cursors (
    export_id UUID NOT NULL,
    file TEXT NOT NULL,
    xid xid8 NOT NULL,
    row_id BIGINT NOT NULL,
    byte_offset BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    header TEXT NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_csv_cursors PRIMARY KEY (export_id, file)
);

COMMENT ON TABLE csv_cursors IS 'How far each CSV file follows the tables.';

COMMENT ON COLUMN csv_cursors.export_id IS 'The output directory, by the id written in it.';

COMMENT ON COLUMN csv_cursors.file IS 'File name.';

COMMENT ON COLUMN csv_cursors.xid IS 'Rows of this transaction and earlier ones are in the file.';

COMMENT ON COLUMN csv_cursors.row_id IS 'Last row of that transaction that is in the file.';

COMMENT ON COLUMN csv_cursors.byte_offset IS 'Length of the file that is known to be whole.';

COMMENT ON COLUMN csv_cursors.row_count IS 'Rows in it, the header not counted.';

COMMENT ON COLUMN csv_cursors.header IS 'Its header line.';

COMMENT ON COLUMN csv_cursors.updated_at IS 'When the cursor last moved.';

CREATE TABLE csv_streams (
    export_id UUID NOT NULL,
    source TEXT NOT NULL,
    symbol TEXT NOT NULL,
    timeframe TEXT NOT NULL,
    open_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_csv_streams PRIMARY KEY (export_id, source, symbol, timeframe)
);

COMMENT ON TABLE csv_streams IS 'How far each stream of bars has come in llm_strategy_results.csv.';

COMMENT ON COLUMN csv_streams.export_id IS 'The output directory.';

COMMENT ON COLUMN csv_streams.source IS 'The stream''s source.';

COMMENT ON COLUMN csv_streams.symbol IS 'The stream''s symbol.';

COMMENT ON COLUMN csv_streams.timeframe IS 'The stream''s timeframe.';

COMMENT ON COLUMN csv_streams.open_time IS 'Its last bar in llm_strategy_results.csv.';

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

-- Running upgrade 0001 -> 0002

CREATE VIEW v_enhanced_signals AS
SELECT
    s.close_time AS signal_time,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.price,
    s.strength,
    COALESCE(r.status, t.status) AS status,
    r.rating,
    r.confidence,
    r.action,
    r.rationale,
    r.risks,
    r.regime,
    r.abstention,
    COALESCE(r.error, t.last_error) AS error,
    r.model,
    r.answered_model,
    r.fallback,
    r.cost_usd,
    r.prompt_tokens,
    r.completion_tokens,
    r.finished_at AS rated_at,
    EXTRACT(EPOCH FROM r.finished_at - s.close_time)::double precision AS close_to_rating_s,
    EXTRACT(EPOCH FROM r.finished_at - s.created_at)::double precision AS signal_to_rating_s,
    r.processing_ms,
    COALESCE(r.attempts, t.attempts) AS attempts,
    r.prompt_version,
    r.rung,
    r.repaired,
    s.source,
    s.snapshot -> 'indicators' AS indicators,
    s.created_at,
    s.stored_at,
    s.id AS signal_id,
    r.call_id
FROM signals s
LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
LEFT JOIN llm_analysis_results r ON r.signal_id = s.id;

COMMENT ON VIEW v_enhanced_signals IS 'One row per signal with its final result; what is not known yet is null.';

COMMENT ON COLUMN v_enhanced_signals.symbol IS 'The instrument.';

COMMENT ON COLUMN v_enhanced_signals.timeframe IS 'Length of the bar the signal stands on.';

COMMENT ON COLUMN v_enhanced_signals.strategy IS 'The rule that fired, with its parameters.';

COMMENT ON COLUMN v_enhanced_signals.side IS 'long, short or exit.';

COMMENT ON COLUMN v_enhanced_signals.signal_time IS 'When the signal''s bar closed, UTC.';

COMMENT ON COLUMN v_enhanced_signals.signal_id IS 'The signal, in signals.';

COMMENT ON COLUMN v_enhanced_signals.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN v_enhanced_signals.answered_model IS 'The model that the reply names, where it names one.';

COMMENT ON COLUMN v_enhanced_signals.price IS 'The bar''s close.';

COMMENT ON COLUMN v_enhanced_signals.strength IS 'How strongly the rule fired, 0 to 1.';

COMMENT ON COLUMN v_enhanced_signals.status IS 'pending, processing, completed, failed, expired or skipped; null when no rating was asked for.';

COMMENT ON COLUMN v_enhanced_signals.rating IS '1 strong reject, 3 neutral, 5 strong confirm; null when there is none.';

COMMENT ON COLUMN v_enhanced_signals.confidence IS 'The model''s own, 0 to 1; null when none was stated.';

COMMENT ON COLUMN v_enhanced_signals.action IS 'enter_long, enter_short, exit, hold, move_to_breakeven, enable_trailing or disable_trailing.';

COMMENT ON COLUMN v_enhanced_signals.rationale IS 'The model''s reason, its own words.';

COMMENT ON COLUMN v_enhanced_signals.risks IS 'Risks the model named.';

COMMENT ON COLUMN v_enhanced_signals.regime IS 'The market regime the model named.';

COMMENT ON COLUMN v_enhanced_signals.abstention IS 'Why a reply was not trusted; null when there is a verdict.';

COMMENT ON COLUMN v_enhanced_signals.error IS 'Why there is no reply; while pending, why the last attempt did not finish.';

COMMENT ON COLUMN v_enhanced_signals.model IS 'Model string that was asked and answered: backend/model.';

COMMENT ON COLUMN v_enhanced_signals.fallback IS 'True when it was not the first choice that answered.';

COMMENT ON COLUMN v_enhanced_signals.cost_usd IS 'Cost over all calls, USD; null when any is unknown.';

COMMENT ON COLUMN v_enhanced_signals.prompt_tokens IS 'Input tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN v_enhanced_signals.completion_tokens IS 'Output tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN v_enhanced_signals.rated_at IS 'When the result was made.';

COMMENT ON COLUMN v_enhanced_signals.close_to_rating_s IS 'Seconds from the bar''s close to the result; of use for live bars only.';

COMMENT ON COLUMN v_enhanced_signals.signal_to_rating_s IS 'Seconds from the signal''s making to the result.';

COMMENT ON COLUMN v_enhanced_signals.processing_ms IS 'From claim to result, milliseconds; null when no attempt came to an end.';

COMMENT ON COLUMN v_enhanced_signals.attempts IS 'How often the task was claimed.';

COMMENT ON COLUMN v_enhanced_signals.rung IS 'The parser''s step that read the reply.';

COMMENT ON COLUMN v_enhanced_signals.repaired IS 'True when the reply''s JSON was mended.';

COMMENT ON COLUMN v_enhanced_signals.source IS 'Where the bar came from: simulated, replay, an exchange.';

COMMENT ON COLUMN v_enhanced_signals.indicators IS 'Indicator name to value at the close.';

COMMENT ON COLUMN v_enhanced_signals.created_at IS 'When the loop made the signal.';

COMMENT ON COLUMN v_enhanced_signals.stored_at IS 'When the signal was written.';

COMMENT ON COLUMN v_enhanced_signals.call_id IS 'The call that gave the reply, in llm_calls.';

CREATE VIEW v_signal_calls AS
SELECT
    c.started_at,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.close_time AS signal_time,
    c.backend,
    c.model,
    c.answered_model,
    c.attempt,
    c.error_class IS NULL AS succeeded,
    c.http_status,
    c.error_class,
    c.error,
    c.finish_reason,
    c.latency_ms,
    c.queue_wait_ms,
    c.prompt_tokens,
    c.completion_tokens,
    c.cost_usd,
    cardinality(c.signal_ids) AS signals_in_call,
    c.cost_usd / cardinality(c.signal_ids) AS cost_share_usd,
    c.prompt_version,
    c.messages,
    c.reply,
    c.reply_id,
    c.finished_at,
    asked.signal_id,
    c.id AS call_id
FROM llm_calls c
CROSS JOIN LATERAL unnest(c.signal_ids) AS asked (signal_id)
LEFT JOIN signals s ON s.id = asked.signal_id;

COMMENT ON VIEW v_signal_calls IS 'One row per signal and request to a model about it, failed ones too.';

COMMENT ON COLUMN v_signal_calls.symbol IS 'The instrument.';

COMMENT ON COLUMN v_signal_calls.timeframe IS 'Length of the bar the signal stands on.';

COMMENT ON COLUMN v_signal_calls.strategy IS 'The rule that fired, with its parameters.';

COMMENT ON COLUMN v_signal_calls.side IS 'long, short or exit.';

COMMENT ON COLUMN v_signal_calls.signal_time IS 'When the signal''s bar closed, UTC.';

COMMENT ON COLUMN v_signal_calls.signal_id IS 'The signal, in signals.';

COMMENT ON COLUMN v_signal_calls.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN v_signal_calls.answered_model IS 'The model that the reply names, where it names one.';

COMMENT ON COLUMN v_signal_calls.started_at IS 'When the request was sent.';

COMMENT ON COLUMN v_signal_calls.backend IS 'First part of the model string.';

COMMENT ON COLUMN v_signal_calls.model IS 'The rest of it, as it went on the wire.';

COMMENT ON COLUMN v_signal_calls.attempt IS 'Which try of its request it was, from 1.';

COMMENT ON COLUMN v_signal_calls.succeeded IS 'Whether a reply came.';

COMMENT ON COLUMN v_signal_calls.http_status IS 'HTTP status, where there was one.';

COMMENT ON COLUMN v_signal_calls.error_class IS 'Class of the failure; null when it succeeded.';

COMMENT ON COLUMN v_signal_calls.error IS 'What went wrong.';

COMMENT ON COLUMN v_signal_calls.finish_reason IS 'Why the model stopped.';

COMMENT ON COLUMN v_signal_calls.latency_ms IS 'From sending to the full reply, milliseconds.';

COMMENT ON COLUMN v_signal_calls.queue_wait_ms IS 'Time spent waiting for the quota, milliseconds.';

COMMENT ON COLUMN v_signal_calls.prompt_tokens IS 'Input tokens of the whole call; null when not reported.';

COMMENT ON COLUMN v_signal_calls.completion_tokens IS 'Output tokens of the whole call; null when not reported.';

COMMENT ON COLUMN v_signal_calls.cost_usd IS 'Cost of the whole call, USD; null when not reported.';

COMMENT ON COLUMN v_signal_calls.signals_in_call IS 'How many signals the call asked about.';

COMMENT ON COLUMN v_signal_calls.cost_share_usd IS 'Cost of the call divided by them, USD.';

COMMENT ON COLUMN v_signal_calls.messages IS 'Exactly what was sent.';

COMMENT ON COLUMN v_signal_calls.reply IS 'Exactly what came back.';

COMMENT ON COLUMN v_signal_calls.reply_id IS 'The provider''s id of the reply.';

COMMENT ON COLUMN v_signal_calls.finished_at IS 'When the request ended.';

COMMENT ON COLUMN v_signal_calls.call_id IS 'The call, in llm_calls.';

CREATE VIEW v_queue AS
SELECT
    t.status,
    count(*) AS tasks,
    min(t.created_at) AS oldest_created_at,
    CASE WHEN t.status IN ('pending', 'processing')
        THEN EXTRACT(EPOCH FROM clock_timestamp() - min(t.created_at))::double precision END AS oldest_age_s,
    count(*) FILTER (WHERE t.status = 'pending' AND t.run_at <= clock_timestamp()) AS due,
    count(*) FILTER (WHERE t.status = 'processing' AND t.lease_expires_at < clock_timestamp()) AS lease_expired,
    max(t.attempts) AS most_attempts,
    max(t.finished_at) AS last_finished_at
FROM llm_enhancement_tasks t
GROUP BY t.status;

COMMENT ON VIEW v_queue IS 'One row per state of the work owed to signals.';

COMMENT ON COLUMN v_queue.status IS 'pending, processing; completed, failed, expired, skipped are final.';

COMMENT ON COLUMN v_queue.tasks IS 'How many there are.';

COMMENT ON COLUMN v_queue.oldest_created_at IS 'When the oldest of them was written.';

COMMENT ON COLUMN v_queue.oldest_age_s IS 'Seconds since then, for work that is not final.';

COMMENT ON COLUMN v_queue.due IS 'Pending ones that may be claimed now.';

COMMENT ON COLUMN v_queue.lease_expired IS 'Processing ones whose worker has not been heard of in time.';

COMMENT ON COLUMN v_queue.most_attempts IS 'Most claims of any one.';

COMMENT ON COLUMN v_queue.last_finished_at IS 'When the latest of them became final.';

CREATE VIEW v_model_usage AS
SELECT
    (c.started_at AT TIME ZONE 'UTC')::date AS day,
    c.backend,
    c.model,
    count(*) AS calls,
    count(*) FILTER (WHERE c.error_class IS NOT NULL) AS failed_calls,
    count(*) FILTER (WHERE c.http_status = 429) AS refused_calls,
    sum(cardinality(c.signal_ids)) AS signals_asked,
    sum(c.prompt_tokens) AS prompt_tokens,
    sum(c.completion_tokens) AS completion_tokens,
    sum(c.cost_usd) AS cost_usd,
    count(*) FILTER (WHERE c.error_class IS NULL AND c.cost_usd IS NULL) AS calls_of_unknown_cost,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY c.latency_ms) AS latency_p50_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY c.latency_ms) AS latency_p95_ms
FROM llm_calls c
GROUP BY 1, 2, 3;

COMMENT ON VIEW v_model_usage IS 'One row per UTC day and model: calls, tokens, cost, latency.';

COMMENT ON COLUMN v_model_usage.day IS 'The UTC day the calls were sent on.';

COMMENT ON COLUMN v_model_usage.backend IS 'First part of the model string.';

COMMENT ON COLUMN v_model_usage.model IS 'The rest of it.';

COMMENT ON COLUMN v_model_usage.calls IS 'Requests, failed ones too.';

COMMENT ON COLUMN v_model_usage.failed_calls IS 'Requests without a reply.';

COMMENT ON COLUMN v_model_usage.refused_calls IS 'Requests answered with 429, too many.';

COMMENT ON COLUMN v_model_usage.signals_asked IS 'Signals asked about, each request counted.';

COMMENT ON COLUMN v_model_usage.prompt_tokens IS 'Input tokens reported.';

COMMENT ON COLUMN v_model_usage.completion_tokens IS 'Output tokens reported.';

COMMENT ON COLUMN v_model_usage.cost_usd IS 'Cost reported, USD.';

COMMENT ON COLUMN v_model_usage.calls_of_unknown_cost IS 'Replies whose cost was not reported, and is not in cost_usd.';

COMMENT ON COLUMN v_model_usage.latency_p50_ms IS 'Half of the requests took no longer, milliseconds.';

COMMENT ON COLUMN v_model_usage.latency_p95_ms IS '95 % of the requests took no longer, milliseconds.';

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE llm_analysis_results ADD COLUMN route TEXT;

COMMENT ON COLUMN llm_analysis_results.route IS 'Why this model was asked: the route''s name and what it stood on.';

ALTER TABLE llm_analysis_results ADD COLUMN rating_expected DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.rating_expected IS 'The rating''s mean under the token probabilities; null where not had.';

ALTER TABLE llm_analysis_results ADD COLUMN rating_entropy DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.rating_entropy IS 'Entropy of those probabilities over the ratings, bits.';

ALTER TABLE llm_analysis_results ADD COLUMN members SMALLINT;

COMMENT ON COLUMN llm_analysis_results.members IS 'How many of those asked gave a verdict; null where only one was asked.';

ALTER TABLE llm_analysis_results ADD COLUMN agreement DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.agreement IS 'Share of the members'' weight that said the verdict''s action, 0 to 1.';

ALTER TABLE llm_analysis_results ADD COLUMN spread DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.spread IS 'Weighted standard deviation of the members'' ratings.';

ALTER TABLE llm_analysis_results ADD COLUMN stability DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.stability IS 'Share of one model''s repeated answers that said the same, 0 to 1.';

ALTER TABLE llm_analysis_results ADD COLUMN reused_from UUID;

COMMENT ON COLUMN llm_analysis_results.reused_from IS 'The earlier signal whose verdict was taken over; null when it was asked for.';

ALTER TABLE llm_analysis_results ADD COLUMN reused_age_s DOUBLE PRECISION;

COMMENT ON COLUMN llm_analysis_results.reused_age_s IS 'How old that verdict was at this signal''s close, seconds.';

ALTER TABLE llm_calls ADD COLUMN route TEXT;

COMMENT ON COLUMN llm_calls.route IS 'Why this model was asked: the route''s name and what it stood on.';

ALTER TABLE llm_calls ADD COLUMN kind TEXT;

COMMENT ON COLUMN llm_calls.kind IS 'What kind of task it was for: decision, analysis, ...';

ALTER TABLE llm_calls ADD COLUMN agent TEXT;

COMMENT ON COLUMN llm_calls.agent IS 'The agent that asked; null for the daemon''s own ratings.';

ALTER TABLE llm_calls ADD COLUMN run_id TEXT;

COMMENT ON COLUMN llm_calls.run_id IS 'The run it belongs to.';

ALTER TABLE llm_calls ADD COLUMN cost_source TEXT;

COMMENT ON COLUMN llm_calls.cost_source IS 'reported by the server, computed from tokens and prices, or free.';

ALTER TABLE llm_calls ADD COLUMN cached BOOLEAN DEFAULT false NOT NULL;

COMMENT ON COLUMN llm_calls.cached IS 'True when nothing was sent: the reply to an equal request was taken again.';

ALTER TABLE llm_calls ADD COLUMN rung TEXT;

COMMENT ON COLUMN llm_calls.rung IS 'The parser''s step that read the reply.';

ALTER TABLE llm_calls ADD COLUMN parsed JSONB;

COMMENT ON COLUMN llm_calls.parsed IS 'What the parser made of the reply, by signal.';

ALTER TABLE llm_calls ADD COLUMN notes TEXT[] DEFAULT '{}' NOT NULL;

COMMENT ON COLUMN llm_calls.notes IS 'What was decided about the call on its way.';

CREATE OR REPLACE VIEW v_enhanced_signals AS
SELECT
    s.close_time AS signal_time,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.price,
    s.strength,
    COALESCE(r.status, t.status) AS status,
    r.rating,
    r.confidence,
    r.action,
    r.rationale,
    r.risks,
    r.regime,
    r.abstention,
    COALESCE(r.error, t.last_error) AS error,
    r.model,
    r.answered_model,
    r.fallback,
    r.cost_usd,
    r.prompt_tokens,
    r.completion_tokens,
    r.finished_at AS rated_at,
    EXTRACT(EPOCH FROM r.finished_at - s.close_time)::double precision AS close_to_rating_s,
    EXTRACT(EPOCH FROM r.finished_at - s.created_at)::double precision AS signal_to_rating_s,
    r.processing_ms,
    COALESCE(r.attempts, t.attempts) AS attempts,
    r.prompt_version,
    r.rung,
    r.repaired,
    s.source,
    s.snapshot -> 'indicators' AS indicators,
    s.created_at,
    s.stored_at,
    s.id AS signal_id,
    r.call_id,
    r.route,
    r.rating_expected,
    r.rating_entropy,
    r.members,
    r.agreement,
    r.spread,
    r.stability,
    r.reused_from,
    r.reused_age_s
FROM signals s
LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
LEFT JOIN llm_analysis_results r ON r.signal_id = s.id;

COMMENT ON COLUMN v_enhanced_signals.route IS 'Why this model was asked: the route''s name and what it stood on.';

COMMENT ON COLUMN v_enhanced_signals.rating_expected IS 'The rating''s mean under the token probabilities; null where not had.';

COMMENT ON COLUMN v_enhanced_signals.rating_entropy IS 'Entropy of those probabilities over the ratings, bits.';

COMMENT ON COLUMN v_enhanced_signals.members IS 'How many of those asked gave a verdict; null where only one was asked.';

COMMENT ON COLUMN v_enhanced_signals.agreement IS 'Share of the members'' weight that said the verdict''s action, 0 to 1.';

COMMENT ON COLUMN v_enhanced_signals.spread IS 'Weighted standard deviation of the members'' ratings.';

COMMENT ON COLUMN v_enhanced_signals.stability IS 'Share of one model''s repeated answers that said the same, 0 to 1.';

COMMENT ON COLUMN v_enhanced_signals.reused_from IS 'The earlier signal whose verdict was taken over; null when it was asked for.';

COMMENT ON COLUMN v_enhanced_signals.reused_age_s IS 'How old that verdict was at this signal''s close, seconds.';

CREATE OR REPLACE VIEW v_signal_calls AS
SELECT
    c.started_at,
    s.symbol,
    s.timeframe,
    s.strategy,
    s.side,
    s.close_time AS signal_time,
    c.backend,
    c.model,
    c.answered_model,
    c.attempt,
    c.error_class IS NULL AS succeeded,
    c.http_status,
    c.error_class,
    c.error,
    c.finish_reason,
    c.latency_ms,
    c.queue_wait_ms,
    c.prompt_tokens,
    c.completion_tokens,
    c.cost_usd,
    cardinality(c.signal_ids) AS signals_in_call,
    c.cost_usd / cardinality(c.signal_ids) AS cost_share_usd,
    c.prompt_version,
    c.messages,
    c.reply,
    c.reply_id,
    c.finished_at,
    asked.signal_id,
    c.id AS call_id,
    c.route,
    c.kind,
    c.agent,
    c.run_id,
    c.cost_source,
    c.cached,
    c.rung,
    c.parsed,
    c.notes
FROM llm_calls c
CROSS JOIN LATERAL unnest(c.signal_ids) AS asked (signal_id)
LEFT JOIN signals s ON s.id = asked.signal_id;

COMMENT ON COLUMN v_signal_calls.route IS 'Why this model was asked: the route''s name and what it stood on.';

COMMENT ON COLUMN v_signal_calls.kind IS 'What kind of task it was for: decision, analysis, ...';

COMMENT ON COLUMN v_signal_calls.agent IS 'The agent that asked; null for the daemon''s own ratings.';

COMMENT ON COLUMN v_signal_calls.run_id IS 'The run it belongs to.';

COMMENT ON COLUMN v_signal_calls.cost_source IS 'reported by the server, computed from tokens and prices, or free.';

COMMENT ON COLUMN v_signal_calls.cached IS 'True when nothing was sent: the reply to an equal request was taken again.';

COMMENT ON COLUMN v_signal_calls.rung IS 'The parser''s step that read the reply.';

COMMENT ON COLUMN v_signal_calls.parsed IS 'What the parser made of the reply, by signal.';

COMMENT ON COLUMN v_signal_calls.notes IS 'What was decided about the call on its way.';

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

-- Running upgrade 0005 -> 0006

CREATE TABLE llm_replies (
    key BYTEA NOT NULL,
    reply JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    hits BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_llm_replies PRIMARY KEY (key)
)
 WITH (fillfactor = 90);

COMMENT ON TABLE llm_replies IS 'Replies kept for a while, for requests that are exactly equal.';

COMMENT ON COLUMN llm_replies.key IS 'SHA-256 of the model, its server and the whole request.';

COMMENT ON COLUMN llm_replies.reply IS 'What the model answered: text, tokens, token probabilities, and the call it came from.';

COMMENT ON COLUMN llm_replies.created_at IS 'When it was kept.';

COMMENT ON COLUMN llm_replies.expires_at IS 'From when on it is not taken again, and may be deleted.';

COMMENT ON COLUMN llm_replies.hits IS 'How often it was taken again.';

CREATE INDEX ix_llm_replies_expires_at ON llm_replies (expires_at);

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

-- Running upgrade 0006 -> 0007

CREATE TABLE llm_audit_chains (
    chain UUID NOT NULL,
    worker TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_seq BIGINT NOT NULL,
    last_hash TEXT NOT NULL,
    pruned_seq BIGINT DEFAULT 0 NOT NULL,
    pruned_hash TEXT,
    CONSTRAINT pk_llm_audit_chains PRIMARY KEY (chain)
);

COMMENT ON TABLE llm_audit_chains IS 'How far each chain of hashes over llm_calls has come; `tradent audit verify` follows them.';

COMMENT ON COLUMN llm_audit_chains.chain IS 'The chain: one for each start of a process that calls models.';

COMMENT ON COLUMN llm_audit_chains.worker IS 'The process, by host and process id.';

COMMENT ON COLUMN llm_audit_chains.started_at IS 'When its first call was stored.';

COMMENT ON COLUMN llm_audit_chains.last_seq IS 'Number of its last call, in llm_calls.seq.';

COMMENT ON COLUMN llm_audit_chains.last_hash IS 'That call''s hash.';

COMMENT ON COLUMN llm_audit_chains.pruned_seq IS 'Calls up to this number were deleted by llm.audit.keep_days.';

COMMENT ON COLUMN llm_audit_chains.pruned_hash IS 'The hash of the last of those; null where none was deleted.';

ALTER TABLE llm_calls ADD COLUMN chain UUID;

COMMENT ON COLUMN llm_calls.chain IS 'The chain of hashes it stands in; null for calls that are older than those.';

ALTER TABLE llm_calls ADD COLUMN seq BIGINT;

COMMENT ON COLUMN llm_calls.seq IS 'Its number in that chain, from 1.';

ALTER TABLE llm_calls ADD COLUMN hash TEXT;

COMMENT ON COLUMN llm_calls.hash IS 'Hash over the call before it and its own content.';

ALTER TABLE llm_calls ADD COLUMN reply_sha256 TEXT;

COMMENT ON COLUMN llm_calls.reply_sha256 IS 'Hash of the reply, which llm.audit.redact may leave out.';

ALTER TABLE llm_calls ADD CONSTRAINT uq_llm_calls_chain_seq UNIQUE (chain, seq);

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';

COMMIT;
