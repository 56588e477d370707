-- The schema of Tradent, up to revision 0019. Generated from database/migrations by
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

CREATE OR REPLACE VIEW v_model_usage AS
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
    percentile_cont(0.5) WITHIN GROUP (ORDER BY c.latency_ms) FILTER (WHERE NOT c.cached) AS latency_p50_ms,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY c.latency_ms) FILTER (WHERE NOT c.cached) AS latency_p95_ms,
    count(*) FILTER (WHERE c.cached) AS cached_calls,
    (count(*) FILTER (WHERE c.error_class IS NULL AND NOT c.cached))::double precision
        / nullif(count(*) FILTER (WHERE NOT c.cached), 0) AS success_rate
FROM llm_calls c
GROUP BY 1, 2, 3;

CREATE VIEW v_model_errors AS
SELECT
    (c.started_at AT TIME ZONE 'UTC')::date AS day,
    c.backend,
    c.model,
    c.error_class,
    count(*) AS calls,
    max(c.started_at) AS last_at,
    (array_agg(c.error ORDER BY c.started_at DESC))[1] AS last_error
FROM llm_calls c
WHERE c.error_class IS NOT NULL
GROUP BY 1, 2, 3, 4;

COMMENT ON VIEW v_model_errors IS 'One row per UTC day, model and kind of failure.';

COMMENT ON COLUMN v_model_usage.cached_calls IS 'Calls of these that sent nothing: the reply to an equal request was taken again.';

COMMENT ON COLUMN v_model_usage.success_rate IS 'Share of the requests that were sent and answered, 0 to 1; null where none was sent.';

COMMENT ON COLUMN v_model_errors.day IS 'The UTC day the calls were sent on.';

COMMENT ON COLUMN v_model_errors.backend IS 'First part of the model string.';

COMMENT ON COLUMN v_model_errors.model IS 'The rest of it.';

COMMENT ON COLUMN v_model_errors.error_class IS 'Class of the failure.';

COMMENT ON COLUMN v_model_errors.calls IS 'Requests that failed so.';

COMMENT ON COLUMN v_model_errors.last_at IS 'When the last of them was sent.';

COMMENT ON COLUMN v_model_errors.last_error IS 'What went wrong with that one.';

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE TABLE llm_quotas (
    id TEXT NOT NULL,
    backend TEXT NOT NULL,
    heard_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    blocked_until TIMESTAMP WITH TIME ZONE,
    steps SMALLINT DEFAULT 0 NOT NULL,
    shrunk_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_llm_quotas PRIMARY KEY (id)
)
 WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

COMMENT ON TABLE llm_quotas IS 'One row per quota: a backend and key that processes share.';

COMMENT ON COLUMN llm_quotas.id IS 'Hash of backend, address and key; the key cannot be had from it.';

COMMENT ON COLUMN llm_quotas.backend IS 'First part of the model string.';

COMMENT ON COLUMN llm_quotas.heard_at IS 'When any process last asked.';

COMMENT ON COLUMN llm_quotas.blocked_until IS 'Until when the server wants no request; null where it never said so.';

COMMENT ON COLUMN llm_quotas.steps IS 'Tenths taken off the limits after 429s.';

COMMENT ON COLUMN llm_quotas.shrunk_at IS 'When the last was taken off, or came back; null where none ever was.';

CREATE TABLE llm_quota_members (
    quota_id TEXT NOT NULL,
    member TEXT NOT NULL,
    joined BIGINT GENERATED ALWAYS AS IDENTITY,
    heard_at TIMESTAMP WITH TIME ZONE NOT NULL,
    share_start DOUBLE PRECISION NOT NULL,
    share_end DOUBLE PRECISION NOT NULL,
    CONSTRAINT pk_llm_quota_members PRIMARY KEY (quota_id, member),
    CONSTRAINT fk_llm_quota_members_quota_id FOREIGN KEY(quota_id) REFERENCES llm_quotas (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

COMMENT ON TABLE llm_quota_members IS 'The processes on each quota, and what each may use while it cannot reach the database.';

COMMENT ON COLUMN llm_quota_members.quota_id IS 'The quota.';

COMMENT ON COLUMN llm_quota_members.member IS 'The process: host and process id.';

COMMENT ON COLUMN llm_quota_members.joined IS 'In which order they came.';

COMMENT ON COLUMN llm_quota_members.heard_at IS 'When it last asked, silences of all together not counted.';

COMMENT ON COLUMN llm_quota_members.share_start IS 'The part of every limit it may use while cut off: from ...';

COMMENT ON COLUMN llm_quota_members.share_end IS '... to, on the way from 0 to 1.';

CREATE TABLE llm_quota_entries (
    quota_id TEXT NOT NULL,
    id UUID NOT NULL,
    member TEXT NOT NULL,
    tokens BIGINT NOT NULL,
    reserved_at TIMESTAMP WITH TIME ZONE NOT NULL,
    counted_at TIMESTAMP WITH TIME ZONE,
    lease_until TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_llm_quota_entries PRIMARY KEY (quota_id, id),
    CONSTRAINT fk_llm_quota_entries_quota_id FOREIGN KEY(quota_id) REFERENCES llm_quotas (id) ON DELETE CASCADE
)
 WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

COMMENT ON TABLE llm_quota_entries IS 'The sliding log: every request that counts against a quota now. Kept small by whoever asks.';

COMMENT ON COLUMN llm_quota_entries.quota_id IS 'The quota.';

COMMENT ON COLUMN llm_quota_entries.id IS 'The place.';

COMMENT ON COLUMN llm_quota_entries.member IS 'The process that has it.';

COMMENT ON COLUMN llm_quota_entries.tokens IS 'Tokens reserved, then used.';

COMMENT ON COLUMN llm_quota_entries.reserved_at IS 'When it was taken.';

COMMENT ON COLUMN llm_quota_entries.counted_at IS 'When the server counted it at the latest; null while the call is under way.';

COMMENT ON COLUMN llm_quota_entries.lease_until IS 'When a call that nobody tells the end of counts no more.';

CREATE FUNCTION llm_quota_now(a_limit bigint, a_steps int) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a_limit > 0 THEN greatest(1, floor(a_limit * (1 - 0.1 * a_steps)))::bigint END
$$;

COMMENT ON FUNCTION llm_quota_now IS 'A limit as it stands with so many tenths taken off; null where it is none.';

CREATE FUNCTION llm_quota_window(
    a_quota text, a_now timestamptz, a_length interval, a_requests bigint, a_tokens bigint, a_steps int,
    a_silent text[], a_count int, a_wanted bigint,
    OUT again timestamptz, OUT surely timestamptz, OUT left_requests bigint, OUT left_tokens bigint
) LANGUAGE plpgsql AS $$
DECLARE
    v_requests float8 := coalesce(llm_quota_now(a_requests, a_steps), 'infinity'::float8);
    v_tokens float8 := coalesce(llm_quota_now(a_tokens, a_steps), 'infinity'::float8);
    v_whole float8 := CASE WHEN a_tokens > 0 THEN a_tokens ELSE 'infinity'::float8 END;
    v_most float8 := CASE WHEN a_requests > 0 THEN a_requests ELSE 'infinity'::float8 END;
    v_used int;
    v_spent float8;
    v_settled float8;
    v_kept record;
    v_entry record;
BEGIN
    again := '-infinity';
    surely := '-infinity';
    IF a_requests = 0 AND a_tokens = 0 THEN
        RETURN;
    END IF;
    SELECT count(*), coalesce(sum(tokens), 0), coalesce(sum(tokens) FILTER (WHERE counted_at IS NOT NULL), 0)
    INTO v_used, v_spent, v_settled FROM llm_quota_entries
    WHERE quota_id = a_quota AND member <> ALL (a_silent) AND (counted_at IS NULL OR counted_at > a_now - a_length);
    IF cardinality(a_silent) > 0 THEN
        SELECT sum(greatest(used, floor(a_requests * share_end) - floor(a_requests * share_start))) AS requests,
               sum(greatest(spent, floor(a_tokens * share_end) - floor(a_tokens * share_start))) AS tokens
        INTO v_kept
        FROM llm_quota_members JOIN LATERAL (
            SELECT count(*) AS used, coalesce(sum(tokens), 0) AS spent FROM llm_quota_entries entry
            WHERE entry.quota_id = a_quota AND entry.member = llm_quota_members.member
              AND (counted_at IS NULL OR counted_at > a_now - a_length)) AS own ON true
        WHERE quota_id = a_quota AND member = ANY (a_silent);
        v_requests := v_requests - v_kept.requests;
        v_tokens := v_tokens - v_kept.tokens;
        v_whole := v_whole - v_kept.tokens;
    END IF;
    left_requests := CASE WHEN a_requests > 0 THEN greatest(0, v_requests - v_used) END;
    left_tokens := CASE WHEN a_tokens > 0 THEN greatest(0, v_tokens - v_spent) END;
    IF v_used + a_count <= v_requests
       AND (v_spent + a_wanted <= v_tokens OR (v_spent = 0 AND a_wanted <= v_whole)) THEN
        RETURN;
    END IF;
    again := NULL;
    surely := CASE WHEN v_used + a_count <= v_most AND (v_settled + a_wanted <= a_tokens OR a_tokens = 0)
                   THEN '-infinity'::timestamptz END;
    FOR v_entry IN
        SELECT counted_at + a_length AS ends, tokens FROM llm_quota_entries
        WHERE quota_id = a_quota AND member <> ALL (a_silent) AND counted_at > a_now - a_length ORDER BY counted_at
    LOOP
        v_used := v_used - 1;
        v_spent := v_spent - v_entry.tokens;
        v_settled := v_settled - v_entry.tokens;
        IF surely IS NULL AND v_used + a_count <= v_most AND (v_settled + a_wanted <= a_tokens OR a_tokens = 0) THEN
            surely := v_entry.ends;
        END IF;
        IF v_used + a_count <= v_requests
           AND (v_spent + a_wanted <= v_tokens OR (v_spent = 0 AND a_wanted <= v_whole)) THEN
            again := v_entry.ends;
            EXIT;
        END IF;
    END LOOP;
    surely := coalesce(surely, a_now + a_length);
END $$;

COMMENT ON FUNCTION llm_quota_window IS 'When requests fit into one window of a quota.';

CREATE FUNCTION llm_quota_share(
    a_quota text, a_member text, a_now timestamptz, a_held float8[], OUT own_from float8, OUT own_to float8
) LANGUAGE plpgsql AS $$
DECLARE
    v_empty boolean := a_held[2] <= a_held[1];
BEGIN
    INSERT INTO llm_quota_members (quota_id, member, heard_at, share_start, share_end)
    VALUES (a_quota, a_member, a_now, a_held[1], a_held[2]) ON CONFLICT (quota_id, member) DO NOTHING;
    SELECT place::float8 / members, (place + 1)::float8 / members INTO own_from, own_to
    FROM (SELECT member, row_number() OVER (ORDER BY joined) - 1 AS place, count(*) OVER () AS members
          FROM llm_quota_members WHERE quota_id = a_quota) AS line
    WHERE member = a_member;
    IF EXISTS (SELECT FROM llm_quota_members
               WHERE quota_id = a_quota AND member <> a_member AND share_start < own_to AND own_from < share_end) THEN
        own_from := greatest(own_from, a_held[1]);
        own_to := least(own_to, a_held[2]);
    END IF;
    IF own_to <= own_from THEN
        own_from := 0;
        own_to := 0;
    END IF;
    UPDATE llm_quota_members
    SET heard_at = a_now,
        share_start = CASE WHEN v_empty THEN own_from WHEN own_to = 0 THEN a_held[1]
                           ELSE least(own_from, a_held[1]) END,
        share_end = CASE WHEN v_empty THEN own_to ELSE greatest(own_to, a_held[2]) END
    WHERE quota_id = a_quota AND member = a_member;
END $$;

COMMENT ON FUNCTION llm_quota_share IS 'The part of a quota that a process may use while it is cut off.';

CREATE FUNCTION llm_quota_ask(
    a_quota text, a_backend text, a_member text, a_share float8[],
    a_ids uuid[], a_tokens bigint[], a_reserved_s float8[], a_counted_s float8[], a_gone boolean[],
    a_refused_s float8, a_retry_after_s float8, a_take uuid[], a_sizes bigint[],
    a_limits bigint[], a_windows float8[], a_lease_s float8, a_silent_s float8, a_expelled_s float8,
    OUT granted boolean, OUT again_s float8, OUT surely_s float8,
    OUT room_requests bigint, OUT room_tokens bigint, OUT used_requests bigint, OUT used_tokens bigint,
    OUT now_requests bigint, OUT now_tokens bigint, OUT blocked_s float8, OUT off_steps int, OUT shrunk_s float8,
    OUT own_start float8, OUT own_end float8
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_quota llm_quotas;
    v_second CONSTANT interval := interval '1 second';
    v_silent text[];
    v_again timestamptz := '-infinity';
    v_surely timestamptz := '-infinity';
    v_part record;
    v_wanted bigint := (SELECT sum(size) FROM unnest(a_sizes) size);
    v_count int := cardinality(a_sizes);
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(hashtextextended(a_quota, 0));
    v_now := clock_timestamp();
    INSERT INTO llm_quotas (id, backend, heard_at) VALUES (a_quota, a_backend, v_now) ON CONFLICT (id) DO NOTHING;
    SELECT * INTO v_quota FROM llm_quotas WHERE id = a_quota;

    -- Time in which nobody was heard is held against nobody: the server was away, not they.
    IF v_now - v_quota.heard_at > a_silent_s * v_second THEN
        UPDATE llm_quota_members SET heard_at = heard_at + (v_now - v_quota.heard_at - a_silent_s * v_second)
        WHERE quota_id = a_quota;
    END IF;
    DELETE FROM llm_quota_members
    WHERE quota_id = a_quota AND member <> a_member AND heard_at < v_now - a_expelled_s * v_second;
    SELECT share.own_from, share.own_to INTO own_start, own_end
    FROM llm_quota_share(a_quota, a_member, v_now, a_share) share;

    IF cardinality(a_ids) > 0 THEN
        DELETE FROM llm_quota_entries entry USING unnest(a_ids, a_gone) AS told(id, gone)
        WHERE entry.quota_id = a_quota AND entry.id = told.id AND told.gone;
        INSERT INTO llm_quota_entries (quota_id, id, member, tokens, reserved_at, counted_at, lease_until)
        SELECT a_quota, told.id, a_member, told.tokens, v_now - told.reserved_s * v_second,
               v_now - told.counted_s * v_second, v_now + (a_lease_s - told.reserved_s) * v_second
        FROM unnest(a_ids, a_tokens, a_reserved_s, a_counted_s, a_gone) AS told(id, tokens, reserved_s, counted_s, gone)
        WHERE NOT told.gone
        ON CONFLICT (quota_id, id) DO UPDATE SET tokens = excluded.tokens, counted_at = excluded.counted_at;
    END IF;
    DELETE FROM llm_quota_entries
    WHERE quota_id = a_quota AND (counted_at <= v_now - a_windows[1] * v_second
                                  OR (counted_at IS NULL AND lease_until <= v_now));

    WHILE v_quota.steps > 0 AND v_now - v_quota.shrunk_at >= 60 * v_second LOOP
        v_quota.steps := v_quota.steps - 1;
        v_quota.shrunk_at := v_quota.shrunk_at + 60 * v_second;
    END LOOP;
    IF a_retry_after_s IS NOT NULL THEN
        v_quota.blocked_until := greatest(v_quota.blocked_until, v_now + a_retry_after_s * v_second);
    END IF;
    IF v_now - a_refused_s * v_second > coalesce(v_quota.shrunk_at, '-infinity') THEN
        v_quota.steps := least(8, v_quota.steps + 1);
        v_quota.shrunk_at := v_now;
    END IF;
    UPDATE llm_quotas SET heard_at = v_now, blocked_until = v_quota.blocked_until, steps = v_quota.steps,
                          shrunk_at = v_quota.shrunk_at
    WHERE id = a_quota;

    v_silent := ARRAY(SELECT member FROM llm_quota_members
                      WHERE quota_id = a_quota AND heard_at <= v_now - a_silent_s * v_second);
    FOR v_window IN 1..2 LOOP
        SELECT * INTO v_part FROM llm_quota_window(
            a_quota, v_now, a_windows[v_window] * v_second, a_limits[2 * v_window - 1], a_limits[2 * v_window],
            v_quota.steps, v_silent, v_count, v_wanted);
        v_again := CASE WHEN v_again IS NULL OR v_part.again IS NULL THEN NULL ELSE greatest(v_again, v_part.again) END;
        v_surely := greatest(v_surely, v_part.surely);
        room_requests := least(room_requests, v_part.left_requests);
        room_tokens := least(room_tokens, v_part.left_tokens);
    END LOOP;
    IF v_quota.blocked_until > v_now THEN
        v_again := greatest(v_again, v_quota.blocked_until);
        v_surely := greatest(v_surely, v_quota.blocked_until);
        room_requests := 0;
    ELSIF v_quota.steps > 0 AND coalesce(v_again, 'infinity') > v_now THEN
        v_again := least(v_again, v_quota.shrunk_at + 60 * v_second);
    END IF;

    granted := cardinality(a_take) > 0 AND coalesce(v_again <= v_now, false);
    IF granted THEN
        INSERT INTO llm_quota_entries (quota_id, id, member, tokens, reserved_at, lease_until)
        SELECT a_quota, taken.id, a_member, taken.tokens, v_now, v_now + a_lease_s * v_second
        FROM unnest(a_take, a_sizes) AS taken(id, tokens);
        room_requests := room_requests - v_count;
        room_tokens := room_tokens - v_wanted;
    END IF;
    again_s := CASE WHEN v_again <= v_now THEN 0 ELSE extract(epoch FROM v_again - v_now) END;
    surely_s := CASE WHEN v_surely <= v_now THEN 0 ELSE extract(epoch FROM v_surely - v_now) END;
    SELECT count(*), coalesce(sum(tokens), 0) INTO used_requests, used_tokens
    FROM llm_quota_entries WHERE quota_id = a_quota;
    now_requests := llm_quota_now(a_limits[1], v_quota.steps);
    now_tokens := llm_quota_now(a_limits[2], v_quota.steps);
    blocked_s := CASE WHEN v_quota.blocked_until > v_now THEN extract(epoch FROM v_quota.blocked_until - v_now) END;
    off_steps := v_quota.steps;
    shrunk_s := extract(epoch FROM v_now - v_quota.shrunk_at);
END $$;

COMMENT ON FUNCTION llm_quota_ask IS 'Tell what became of places, take new ones or hear when to ask again.';

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

CREATE TABLE llm_budget_periods (
    kind TEXT NOT NULL,
    period TEXT NOT NULL,
    usd NUMERIC DEFAULT 0 NOT NULL,
    tokens BIGINT DEFAULT 0 NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_llm_budget_periods PRIMARY KEY (kind, period),
    CONSTRAINT ck_llm_budget_periods_kind CHECK (kind IN ('day', 'month', 'run'))
)
 WITH (fillfactor = 50);

COMMENT ON TABLE llm_budget_periods IS 'What budgets have given, by day, month and run; only calls that cost money, while a limit is set.';

COMMENT ON COLUMN llm_budget_periods.kind IS 'day, month or run.';

COMMENT ON COLUMN llm_budget_periods.period IS 'Which: 2026-11-20 and 2026-11 by UTC, or the run''s id.';

COMMENT ON COLUMN llm_budget_periods.usd IS 'What counts against limits in USD: the cost of calls, the most it can be until it is known.';

COMMENT ON COLUMN llm_budget_periods.tokens IS 'What counts against limits in tokens, in and out, in the same way.';

COMMENT ON COLUMN llm_budget_periods.updated_at IS 'When it last changed.';

CREATE TABLE llm_budget_reservations (
    id UUID NOT NULL,
    model TEXT NOT NULL,
    run_id TEXT NOT NULL,
    taken_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    usd NUMERIC NOT NULL,
    tokens BIGINT NOT NULL,
    settled_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_llm_budget_reservations PRIMARY KEY (id)
);

COMMENT ON TABLE llm_budget_reservations IS 'What each paid call was reserved in llm_budget_periods. Kept for a day past its expiry.';

COMMENT ON COLUMN llm_budget_reservations.id IS 'The reservation.';

COMMENT ON COLUMN llm_budget_reservations.model IS 'Model string of the call it is for.';

COMMENT ON COLUMN llm_budget_reservations.run_id IS 'The run it counts for.';

COMMENT ON COLUMN llm_budget_reservations.taken_at IS 'When it was made; says which day and month it counts for.';

COMMENT ON COLUMN llm_budget_reservations.expires_at IS 'When its outcome is not expected any more: what it counts then stays spent.';

COMMENT ON COLUMN llm_budget_reservations.usd IS 'What it counts now, USD: the most the call may cost, until told.';

COMMENT ON COLUMN llm_budget_reservations.tokens IS 'What it counts now, tokens in and out.';

COMMENT ON COLUMN llm_budget_reservations.settled_at IS 'When its outcome was told; null while the call is under way, or was lost.';

CREATE INDEX ix_llm_budget_reservations_expires_at ON llm_budget_reservations (expires_at);

CREATE TABLE llm_prices (
    backend TEXT NOT NULL,
    model TEXT NOT NULL,
    input_usd NUMERIC NOT NULL,
    output_usd NUMERIC NOT NULL,
    request_usd NUMERIC NOT NULL,
    source TEXT NOT NULL,
    reference BOOLEAN DEFAULT false NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_llm_prices PRIMARY KEY (backend, model)
);

COMMENT ON TABLE llm_prices IS 'What models cost, as last learned.';

COMMENT ON COLUMN llm_prices.backend IS 'First part of the model string.';

COMMENT ON COLUMN llm_prices.model IS 'The rest of it.';

COMMENT ON COLUMN llm_prices.input_usd IS 'USD for an input token.';

COMMENT ON COLUMN llm_prices.output_usd IS 'USD for an output token.';

COMMENT ON COLUMN llm_prices.request_usd IS 'USD for each request, on top.';

COMMENT ON COLUMN llm_prices.source IS 'Who says so: config, the backend, or free for local models.';

COMMENT ON COLUMN llm_prices.reference IS 'True for the paid model, of those set the first, against which savings are told.';

COMMENT ON COLUMN llm_prices.seen_at IS 'When it was last said.';

CREATE VIEW v_llm_budgets AS
SELECT
    p.kind,
    p.period,
    p.usd AS counted_usd,
    p.usd - coalesce(open.usd, 0) AS spent_usd,
    coalesce(open.usd, 0) AS reserved_usd,
    p.tokens AS counted_tokens,
    p.tokens - coalesce(open.tokens, 0) AS spent_tokens,
    coalesce(open.tokens, 0) AS reserved_tokens,
    coalesce(open.calls, 0) AS calls_under_way,
    p.updated_at
FROM llm_budget_periods p
LEFT JOIN (
    SELECT named.kind, named.period, sum(r.usd) AS usd, sum(r.tokens)::bigint AS tokens, count(*) AS calls
    FROM llm_budget_reservations r
    CROSS JOIN LATERAL (VALUES
        ('day', to_char(r.taken_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
        ('month', to_char(r.taken_at AT TIME ZONE 'UTC', 'YYYY-MM')),
        ('run', r.run_id)
    ) AS named (kind, period)
    WHERE r.settled_at IS NULL AND r.expires_at > statement_timestamp()
    GROUP BY named.kind, named.period
) open ON open.kind = p.kind AND open.period = p.period;

COMMENT ON VIEW v_llm_budgets IS 'One row per day, month and run of a budget: spent and reserved.';

COMMENT ON COLUMN v_llm_budgets.kind IS 'day, month or run.';

COMMENT ON COLUMN v_llm_budgets.period IS 'Which: 2026-11-20 and 2026-11 by UTC, or the run''s id.';

COMMENT ON COLUMN v_llm_budgets.counted_usd IS 'What counts against limits in USD: spent and reserved.';

COMMENT ON COLUMN v_llm_budgets.spent_usd IS 'What calls cost, USD; the most they may have cost where that was never told.';

COMMENT ON COLUMN v_llm_budgets.reserved_usd IS 'The most that the calls under way may cost, USD.';

COMMENT ON COLUMN v_llm_budgets.counted_tokens IS 'What counts against limits in tokens, in and out: spent and reserved.';

COMMENT ON COLUMN v_llm_budgets.spent_tokens IS 'Tokens of the calls that are over.';

COMMENT ON COLUMN v_llm_budgets.reserved_tokens IS 'The most tokens of the calls under way.';

COMMENT ON COLUMN v_llm_budgets.calls_under_way IS 'How many they are.';

COMMENT ON COLUMN v_llm_budgets.updated_at IS 'When it last changed.';

CREATE VIEW v_llm_costs_daily AS
SELECT
    c.day,
    c.backend,
    c.model,
    c.prompt_version,
    c.calls,
    c.failed_calls,
    c.cached_calls,
    c.signals,
    c.ratings,
    c.prompt_tokens,
    c.completion_tokens,
    c.cost_usd,
    c.calls_of_unknown_cost,
    CASE WHEN c.calls_of_unknown_cost = 0 THEN c.cost_usd / nullif(c.signals, 0) END AS cost_per_signal_usd,
    CASE WHEN c.calls_of_unknown_cost = 0 THEN 1000 * c.cost_usd / nullif(c.ratings, 0)
        END AS cost_per_thousand_ratings_usd,
    CASE WHEN local.model IS NULL
        THEN c.free_calls * paid.request_usd + c.free_prompt_tokens * paid.input_usd
            + c.free_completion_tokens * paid.output_usd
        ELSE c.answered_calls * paid.request_usd + c.answered_prompt_tokens * paid.input_usd
            + c.answered_completion_tokens * paid.output_usd
        END AS savings_usd,
    paid.backend || '/' || paid.model AS savings_against
FROM (
    SELECT
        (call.started_at AT TIME ZONE 'UTC')::date AS day,
        call.backend,
        call.model,
        call.prompt_version,
        count(*) AS calls,
        count(*) FILTER (WHERE NOT succeeded) AS failed_calls,
        count(*) FILTER (WHERE call.cached) AS cached_calls,
        coalesce(sum(cardinality(call.signal_ids)) FILTER (WHERE succeeded), 0) AS signals,
        coalesce(sum(given.ratings), 0)::bigint AS ratings,
        sum(call.prompt_tokens) FILTER (WHERE NOT call.cached) AS prompt_tokens,
        sum(call.completion_tokens) FILTER (WHERE NOT call.cached) AS completion_tokens,
        sum(call.cost_usd) AS cost_usd,
        count(*) FILTER (WHERE succeeded AND call.cost_usd IS NULL) AS calls_of_unknown_cost,
        count(*) FILTER (WHERE answered) AS answered_calls,
        coalesce(sum(call.prompt_tokens) FILTER (WHERE answered), 0) AS answered_prompt_tokens,
        coalesce(sum(call.completion_tokens) FILTER (WHERE answered), 0) AS answered_completion_tokens,
        count(*) FILTER (WHERE answered AND call.cost_usd = 0) AS free_calls,
        coalesce(sum(call.prompt_tokens) FILTER (WHERE answered AND call.cost_usd = 0), 0) AS free_prompt_tokens,
        coalesce(sum(call.completion_tokens) FILTER (WHERE answered AND call.cost_usd = 0), 0)
            AS free_completion_tokens
    FROM llm_calls call
    CROSS JOIN LATERAL (SELECT call.error_class IS NULL AS succeeded,
                               call.error_class IS NULL AND NOT call.cached
                                   AND call.prompt_tokens + call.completion_tokens > 0 AS answered) how
    LEFT JOIN (
        SELECT r.call_id, count(*) AS ratings FROM llm_analysis_results r
        WHERE r.rating IS NOT NULL AND r.reused_from IS NULL AND r.call_id IS NOT NULL
        GROUP BY r.call_id
    ) given ON given.call_id = call.id
    GROUP BY 1, 2, 3, 4
) c
LEFT JOIN llm_prices local ON local.backend = c.backend AND local.model = c.model AND local.source = 'free'
LEFT JOIN (SELECT * FROM llm_prices WHERE reference ORDER BY seen_at DESC LIMIT 1) paid ON true;

COMMENT ON VIEW v_llm_costs_daily IS 'One row per UTC day, model and prompt version: what it cost, and what it saved.';

COMMENT ON COLUMN v_llm_costs_daily.day IS 'The UTC day the calls were sent on.';

COMMENT ON COLUMN v_llm_costs_daily.backend IS 'First part of the model string.';

COMMENT ON COLUMN v_llm_costs_daily.model IS 'The rest of it.';

COMMENT ON COLUMN v_llm_costs_daily.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN v_llm_costs_daily.calls IS 'Requests, all tries and the failed ones too, and the replies taken again.';

COMMENT ON COLUMN v_llm_costs_daily.failed_calls IS 'Requests without a reply.';

COMMENT ON COLUMN v_llm_costs_daily.cached_calls IS 'Replies taken again: nothing was sent, and nothing is counted but their number.';

COMMENT ON COLUMN v_llm_costs_daily.signals IS 'Signals asked about in requests with a reply, each request counted.';

COMMENT ON COLUMN v_llm_costs_daily.ratings IS 'Ratings that stand on these calls.';

COMMENT ON COLUMN v_llm_costs_daily.prompt_tokens IS 'Input tokens reported.';

COMMENT ON COLUMN v_llm_costs_daily.completion_tokens IS 'Output tokens reported.';

COMMENT ON COLUMN v_llm_costs_daily.cost_usd IS 'Cost known, failed tries included where they have one, USD; null where none is.';

COMMENT ON COLUMN v_llm_costs_daily.calls_of_unknown_cost IS 'Replies whose cost is not known, and is not in cost_usd.';

COMMENT ON COLUMN v_llm_costs_daily.cost_per_signal_usd IS 'cost_usd by signals; null while any reply''s cost is not known.';

COMMENT ON COLUMN v_llm_costs_daily.cost_per_thousand_ratings_usd IS 'cost_usd by ratings, times 1000; null while any reply''s cost is not known.';

COMMENT ON COLUMN v_llm_costs_daily.savings_usd IS 'What the tokens of the replies that cost nothing, or come from a local model, would have cost by the price in llm_prices marked reference, as it is now, USD; null where there is no such price.';

COMMENT ON COLUMN v_llm_costs_daily.savings_against IS 'The model string of that price.';

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

-- Running upgrade 0007 -> 0008

CREATE FUNCTION xid_here(xid8) RETURNS xid8 LANGUAGE sql STABLE STRICT PARALLEL SAFE AS 'SELECT ($1::text::bigint + 0)::text::xid8';

COMMENT ON FUNCTION xid_here(xid8) IS 'A transaction of this server, numbered on from those of the server a dump was taken from.';

ALTER TABLE market_data ALTER COLUMN xid SET DEFAULT xid_here(pg_current_xact_id());

ALTER TABLE signals ALTER COLUMN xid SET DEFAULT xid_here(pg_current_xact_id());

ALTER TABLE llm_analysis_results ALTER COLUMN xid SET DEFAULT xid_here(pg_current_xact_id());

ALTER TABLE csv_cursors ADD COLUMN closed INTEGER DEFAULT 0 NOT NULL;

COMMENT ON COLUMN csv_cursors.closed IS 'How many files were closed before it.';

ALTER TABLE csv_cursors ADD COLUMN day DATE;

COMMENT ON COLUMN csv_cursors.day IS 'The day of its rows, UTC; null before the first.';

ALTER TABLE csv_cursors ADD COLUMN crc BIGINT;

COMMENT ON COLUMN csv_cursors.crc IS 'CRC-32 of those bytes; null where it was written by a version that kept none.';

ALTER TABLE csv_cursors ADD COLUMN stamp TEXT;

COMMENT ON COLUMN csv_cursors.stamp IS 'Inode, length and time of change as they were left; null where they are not known.';

UPDATE csv_cursors SET day = (updated_at AT TIME ZONE 'UTC')::date WHERE row_count > 0;

CREATE TABLE csv_closed (
    export_id UUID NOT NULL,
    file TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    day DATE NOT NULL,
    header TEXT NOT NULL,
    xid xid8 NOT NULL,
    row_id BIGINT NOT NULL,
    streams JSONB NOT NULL,
    byte_count BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    crc BIGINT NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_csv_closed PRIMARY KEY (export_id, file, number)
);

COMMENT ON TABLE csv_closed IS 'The CSV files that are closed: a day that is over, or rows under columns that have changed.';

COMMENT ON COLUMN csv_closed.export_id IS 'The output directory.';

COMMENT ON COLUMN csv_closed.file IS 'Name of the file that went on.';

COMMENT ON COLUMN csv_closed.number IS 'Which of its closed files, from 1.';

COMMENT ON COLUMN csv_closed.name IS 'The closed file''s name.';

COMMENT ON COLUMN csv_closed.day IS 'The day of its rows, UTC.';

COMMENT ON COLUMN csv_closed.header IS 'Its header line.';

COMMENT ON COLUMN csv_closed.xid IS 'Where it ends, as in csv_cursors.';

COMMENT ON COLUMN csv_closed.row_id IS 'Where it ends, as in csv_cursors.';

COMMENT ON COLUMN csv_closed.streams IS 'Where it ends, as in csv_streams.';

COMMENT ON COLUMN csv_closed.byte_count IS 'Its length before it was packed.';

COMMENT ON COLUMN csv_closed.row_count IS 'Rows in it, the header not counted.';

COMMENT ON COLUMN csv_closed.crc IS 'CRC-32 of its content, as gzip has it.';

COMMENT ON COLUMN csv_closed.closed_at IS 'When it was closed.';

UPDATE alembic_version SET version_num='0008' WHERE alembic_version.version_num = '0007';

-- Running upgrade 0008 -> 0009

CREATE FUNCTION tradent_partitions(a_parent text)
RETURNS TABLE (name text, lower_bound timestamptz, upper_bound timestamptz) LANGUAGE sql STABLE AS $$
    SELECT child.relname::text, replace(bounds[1], 'MINVALUE', '-infinity')::timestamptz,
           replace(bounds[2], 'MAXVALUE', 'infinity')::timestamptz
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    CROSS JOIN LATERAL regexp_match(pg_get_expr(child.relpartbound, child.oid),
                                    'FROM \(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)') bounds
    WHERE inhparent = to_regclass(a_parent) AND child.relkind = 'r' AND bounds IS NOT NULL
    ORDER BY 2
$$;

COMMENT ON FUNCTION tradent_partitions(text) IS 'The partitions of a table and the times they hold, oldest first.';

CREATE FUNCTION tradent_partitions_until(a_parent text, a_until timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_later CONSTANT text := a_parent || '_later';
    v_key text;
    v_from timestamptz;
    v_to timestamptz;
    v_month timestamptz;
    v_next timestamptz;
    v_name text;
    v_made int := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('tradent partitions of ' || a_parent, 0)) THEN
        RETURN 0;
    END IF;
    SELECT lower_bound INTO v_from FROM tradent_partitions(a_parent) WHERE name = v_later;
    IF v_from IS NULL OR v_from >= a_until THEN
        RETURN 0;
    END IF;
    SELECT attname INTO v_key FROM pg_partitioned_table JOIN pg_attribute ON attrelid = partrelid
    WHERE partrelid = to_regclass(a_parent) AND attnum = partattrs[0];

    v_to := v_from;
    WHILE v_to < a_until AND v_made < 24 LOOP
        v_name := a_parent || to_char(v_to AT TIME ZONE 'UTC', '_YYYY_MM');
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING IDENTITY)', v_name, a_parent);
        v_to := (v_to AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        v_made := v_made + 1;
    END LOOP;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', a_parent, v_later);
    v_month := v_from;
    WHILE v_month < v_to LOOP
        v_name := a_parent || to_char(v_month AT TIME ZONE 'UTC', '_YYYY_MM');
        v_next := (v_month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        EXECUTE format('WITH moved AS (DELETE FROM %1$I WHERE %2$I >= %3$L AND %2$I < %4$L RETURNING *) '
                       'INSERT INTO %5$I SELECT * FROM moved', v_later, v_key, v_month, v_next, v_name);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       a_parent, v_name, v_month, v_next);
        v_month := v_next;
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (MAXVALUE)', a_parent, v_later, v_to);
    RETURN v_made;
END $$;

COMMENT ON FUNCTION tradent_partitions_until(text, timestamptz) IS 'Makes the months up to a time, at most 24, and returns how many; for the daemon, or a restricted role''s administrator.';

DO $do$
DECLARE
    v_bound timestamptz;
    v_view record;
    v_grant record;
    v_views CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(view.oid::regclass::text, pg_get_viewdef(view.oid))), '[]')
        FROM (SELECT DISTINCT c.oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
              JOIN pg_class c ON c.oid = r.ev_class
              WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'market_data'::regclass AND c.relkind = 'v') view);
    v_grants CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'
            ELSE grantee::regrole::text END, is_grantable)), '[]')
        FROM pg_class, aclexplode(relacl) WHERE oid = 'market_data'::regclass AND grantee <> relowner);
BEGIN

    v_bound := (date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
                + CASE WHEN EXISTS (SELECT FROM market_data) THEN interval '1 month' ELSE -interval '12 months' END)
               AT TIME ZONE 'UTC';
    ALTER TABLE market_data RENAME TO market_data_earlier;

    ALTER SEQUENCE market_data_id_seq RENAME TO market_data_earlier_id_seq;
    ALTER TABLE market_data_earlier DROP CONSTRAINT pk_market_data;
    ALTER TABLE market_data_earlier DROP CONSTRAINT uq_market_data_source_symbol_timeframe_open_time;
    ALTER TABLE market_data_earlier ADD CONSTRAINT market_data_earlier_pkey
        PRIMARY KEY (source, symbol, timeframe, open_time);
    ALTER INDEX ix_market_data_xid_id RENAME TO market_data_earlier_xid_id_idx;

    CREATE TABLE market_data (LIKE market_data_earlier INCLUDING DEFAULTS INCLUDING COMMENTS INCLUDING IDENTITY)
        PARTITION BY RANGE (open_time);
    COMMENT ON TABLE market_data IS 'One row per closed bar. Bars of one source, symbol and timeframe are stored in order, each once.';

    ALTER TABLE market_data ADD CONSTRAINT pk_market_data PRIMARY KEY (source, symbol, timeframe, open_time);
    CREATE INDEX ix_market_data_xid_id ON market_data (xid, id);


    PERFORM setval('market_data_id_seq', last_value, is_called) FROM market_data_earlier_id_seq;
    ALTER TABLE market_data_earlier ALTER COLUMN id DROP IDENTITY;

    CREATE TABLE market_data_later (LIKE market_data INCLUDING ALL EXCLUDING IDENTITY);
    EXECUTE format('WITH moved AS (DELETE FROM market_data_earlier WHERE open_time >= %L RETURNING *) '
                   'INSERT INTO market_data_later SELECT * FROM moved', v_bound);
    EXECUTE format('ALTER TABLE market_data ATTACH PARTITION market_data_earlier FOR VALUES FROM (MINVALUE) TO (%L)', v_bound);
    EXECUTE format('ALTER TABLE market_data ATTACH PARTITION market_data_later FOR VALUES FROM (%L) TO (MAXVALUE)', v_bound);
    COMMENT ON TABLE market_data_earlier IS NULL;
    PERFORM tradent_partitions_until('market_data', clock_timestamp() + interval '2 months');

    FOR v_view IN SELECT item ->> 0 AS name, item ->> 1 AS definition FROM jsonb_array_elements(v_views) item LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', v_view.name, v_view.definition);
    END LOOP;
    FOR v_grant IN SELECT item ->> 0 AS what, item ->> 1 AS whom, (item ->> 2)::boolean AS further
                   FROM jsonb_array_elements(v_grants) item LOOP
        EXECUTE format('GRANT %s ON market_data TO %s%s', v_grant.what, v_grant.whom,
                       CASE WHEN v_grant.further THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $do$;

DO $do$
DECLARE
    v_bound timestamptz;
    v_view record;
    v_grant record;
    v_views CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(view.oid::regclass::text, pg_get_viewdef(view.oid))), '[]')
        FROM (SELECT DISTINCT c.oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
              JOIN pg_class c ON c.oid = r.ev_class
              WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'llm_calls'::regclass AND c.relkind = 'v') view);
    v_grants CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'
            ELSE grantee::regrole::text END, is_grantable)), '[]')
        FROM pg_class, aclexplode(relacl) WHERE oid = 'llm_calls'::regclass AND grantee <> relowner);
BEGIN

    v_bound := (date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
                + CASE WHEN EXISTS (SELECT FROM llm_calls) THEN interval '1 month' ELSE -interval '0 months' END)
               AT TIME ZONE 'UTC';
    ALTER TABLE llm_calls RENAME TO llm_calls_earlier;

    ALTER TABLE llm_calls_earlier DROP CONSTRAINT pk_llm_calls;
    ALTER TABLE llm_calls_earlier DROP CONSTRAINT uq_llm_calls_chain_seq;
    ALTER TABLE llm_calls_earlier ADD CONSTRAINT llm_calls_earlier_pkey PRIMARY KEY (id, started_at);
    CREATE INDEX llm_calls_earlier_chain_seq_idx ON llm_calls_earlier (chain, seq);
    ALTER INDEX ix_llm_calls_signal_ids RENAME TO llm_calls_earlier_signal_ids_idx;
    ALTER INDEX ix_llm_calls_backend_finished_at RENAME TO llm_calls_earlier_backend_finished_at_idx;

    CREATE TABLE llm_calls (LIKE llm_calls_earlier INCLUDING DEFAULTS INCLUDING COMMENTS )
        PARTITION BY RANGE (started_at);
    COMMENT ON TABLE llm_calls IS 'Every request to a model, failed ones too: the audit trail, and what the quota remembers at start.';

    ALTER TABLE llm_calls ADD CONSTRAINT pk_llm_calls PRIMARY KEY (id, started_at);
    CREATE INDEX ix_llm_calls_chain_seq ON llm_calls (chain, seq);
    CREATE INDEX ix_llm_calls_signal_ids ON llm_calls USING gin (signal_ids);
    CREATE INDEX ix_llm_calls_backend_finished_at ON llm_calls (backend, finished_at);


    CREATE TABLE llm_calls_later (LIKE llm_calls INCLUDING ALL EXCLUDING IDENTITY);
    EXECUTE format('WITH moved AS (DELETE FROM llm_calls_earlier WHERE started_at >= %L RETURNING *) '
                   'INSERT INTO llm_calls_later SELECT * FROM moved', v_bound);
    EXECUTE format('ALTER TABLE llm_calls ATTACH PARTITION llm_calls_earlier FOR VALUES FROM (MINVALUE) TO (%L)', v_bound);
    EXECUTE format('ALTER TABLE llm_calls ATTACH PARTITION llm_calls_later FOR VALUES FROM (%L) TO (MAXVALUE)', v_bound);
    COMMENT ON TABLE llm_calls_earlier IS NULL;
    PERFORM tradent_partitions_until('llm_calls', clock_timestamp() + interval '2 months');

    FOR v_view IN SELECT item ->> 0 AS name, item ->> 1 AS definition FROM jsonb_array_elements(v_views) item LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', v_view.name, v_view.definition);
    END LOOP;
    FOR v_grant IN SELECT item ->> 0 AS what, item ->> 1 AS whom, (item ->> 2)::boolean AS further
                   FROM jsonb_array_elements(v_grants) item LOOP
        EXECUTE format('GRANT %s ON llm_calls TO %s%s', v_grant.what, v_grant.whom,
                       CASE WHEN v_grant.further THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $do$;

UPDATE alembic_version SET version_num='0009' WHERE alembic_version.version_num = '0008';

-- Running upgrade 0009 -> 0010

ALTER TABLE llm_quotas ADD COLUMN epoch INTEGER DEFAULT 0 NOT NULL;

COMMENT ON COLUMN llm_quotas.epoch IS 'How often the clock was found set, and the log moved with it.';

DROP FUNCTION llm_quota_ask;

CREATE FUNCTION llm_quota_ask(
    a_quota text, a_backend text, a_member text, a_share float8[],
    a_ids uuid[], a_tokens bigint[], a_reserved_s float8[], a_counted_s float8[], a_gone boolean[],
    a_refused_s float8, a_retry_after_s float8, a_take uuid[], a_sizes bigint[],
    a_limits bigint[], a_windows float8[], a_lease_s float8, a_silent_s float8, a_expelled_s float8,
    a_expected timestamptz DEFAULT NULL, a_late_s float8 DEFAULT NULL, a_epoch int DEFAULT NULL,
    a_set_s float8 DEFAULT NULL,
    OUT granted boolean, OUT again_s float8, OUT surely_s float8,
    OUT room_requests bigint, OUT room_tokens bigint, OUT used_requests bigint, OUT used_tokens bigint,
    OUT now_requests bigint, OUT now_tokens bigint, OUT blocked_s float8, OUT off_steps int, OUT shrunk_s float8,
    OUT own_start float8, OUT own_end float8, OUT now_at timestamptz, OUT epoch int
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_now timestamptz;
    v_quota llm_quotas;
    v_second CONSTANT interval := interval '1 second';
    v_silent text[];
    v_again timestamptz := '-infinity';
    v_surely timestamptz := '-infinity';
    v_part record;
    v_wanted bigint := (SELECT sum(size) FROM unnest(a_sizes) size);
    v_count int := cardinality(a_sizes);
    v_set interval := a_set_s * v_second;
    v_held_whole boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    PERFORM pg_advisory_xact_lock(hashtextextended(a_quota, 0));
    v_now := clock_timestamp();
    INSERT INTO llm_quotas (id, backend, heard_at) VALUES (a_quota, a_backend, v_now) ON CONFLICT (id) DO NOTHING;
    SELECT * INTO v_quota FROM llm_quotas WHERE id = a_quota;

    -- A clock that was set, as whoever has asked before can tell, moves all that is written here: no place falls free
    -- by it, and none is held for longer. A statement that comes late, after its process gave it up, does nothing.
    IF v_set IS NOT NULL AND v_quota.epoch <> a_epoch THEN
        v_set := NULL;
    ELSIF v_set IS NULL AND v_quota.heard_at > v_now + v_second THEN
        v_set := v_now - v_quota.heard_at;
    END IF;
    IF v_set IS NOT NULL THEN
        UPDATE llm_quota_entries
        SET reserved_at = reserved_at + v_set, counted_at = counted_at + v_set, lease_until = lease_until + v_set
        WHERE quota_id = a_quota;
        UPDATE llm_quota_members SET heard_at = heard_at + v_set WHERE quota_id = a_quota;
        UPDATE llm_quotas
        SET epoch = epoch + 1, heard_at = heard_at + v_set, blocked_until = blocked_until + v_set,
            shrunk_at = shrunk_at + v_set
        WHERE id = a_quota RETURNING * INTO v_quota;
    END IF;
    now_at := v_now;
    epoch := v_quota.epoch;
    IF v_now < a_expected - 0.5 * v_second OR v_now > a_expected + a_late_s * v_second THEN
        RETURN;
    END IF;

    -- Time in which nobody was heard is held against nobody: the server was away, not they.
    IF v_now - v_quota.heard_at > a_silent_s * v_second THEN
        UPDATE llm_quota_members SET heard_at = heard_at + (v_now - v_quota.heard_at - a_silent_s * v_second)
        WHERE quota_id = a_quota;
    END IF;
    DELETE FROM llm_quota_members
    WHERE quota_id = a_quota AND member <> a_member AND heard_at < v_now - (a_expelled_s + a_lease_s) * v_second;
    SELECT share.own_from, share.own_to INTO own_start, own_end
    FROM llm_quota_share(a_quota, a_member, v_now, a_share) share;

    IF cardinality(a_ids) > 0 THEN
        DELETE FROM llm_quota_entries entry USING unnest(a_ids, a_gone) AS told(id, gone)
        WHERE entry.quota_id = a_quota AND entry.id = told.id AND told.gone;
        INSERT INTO llm_quota_entries (quota_id, id, member, tokens, reserved_at, counted_at, lease_until)
        SELECT a_quota, told.id, a_member, told.tokens, v_now - told.reserved_s * v_second,
               v_now - told.counted_s * v_second, v_now + (a_lease_s - told.reserved_s) * v_second
        FROM unnest(a_ids, a_tokens, a_reserved_s, a_counted_s, a_gone) AS told(id, tokens, reserved_s, counted_s, gone)
        WHERE NOT told.gone
        ON CONFLICT (quota_id, id) DO UPDATE SET tokens = excluded.tokens, counted_at = excluded.counted_at;
    END IF;
    DELETE FROM llm_quota_entries
    WHERE quota_id = a_quota AND (counted_at <= v_now - a_windows[1] * v_second
                                  OR (counted_at IS NULL AND lease_until <= v_now));

    WHILE v_quota.steps > 0 AND v_now - v_quota.shrunk_at >= 60 * v_second LOOP
        v_quota.steps := v_quota.steps - 1;
        v_quota.shrunk_at := v_quota.shrunk_at + 60 * v_second;
    END LOOP;
    IF a_retry_after_s IS NOT NULL THEN
        v_quota.blocked_until := greatest(v_quota.blocked_until, v_now + a_retry_after_s * v_second);
    END IF;
    IF v_now - a_refused_s * v_second > coalesce(v_quota.shrunk_at, '-infinity') THEN
        v_quota.steps := least(8, v_quota.steps + 1);
        v_quota.shrunk_at := v_now;
    END IF;
    UPDATE llm_quotas SET heard_at = v_now, blocked_until = v_quota.blocked_until, steps = v_quota.steps,
                          shrunk_at = v_quota.shrunk_at
    WHERE id = a_quota;

    v_silent := ARRAY(SELECT member FROM llm_quota_members
                      WHERE quota_id = a_quota AND heard_at <= v_now - a_silent_s * v_second);
    FOR v_window IN 1..2 LOOP
        SELECT * INTO v_part FROM llm_quota_window(
            a_quota, v_now, a_windows[v_window] * v_second, a_limits[2 * v_window - 1], a_limits[2 * v_window],
            v_quota.steps, v_silent, v_count, v_wanted);
        v_again := CASE WHEN v_again IS NULL OR v_part.again IS NULL THEN NULL ELSE greatest(v_again, v_part.again) END;
        v_surely := greatest(v_surely, v_part.surely);
        room_requests := least(room_requests, v_part.left_requests);
        room_tokens := least(room_tokens, v_part.left_tokens);
    END LOOP;
    IF v_quota.blocked_until > v_now THEN
        v_again := greatest(v_again, v_quota.blocked_until);
        v_surely := greatest(v_surely, v_quota.blocked_until);
        room_requests := 0;
    ELSIF v_quota.steps > 0 AND coalesce(v_again, 'infinity') > v_now THEN
        v_again := least(v_again, v_quota.shrunk_at + 60 * v_second);
    END IF;

    -- One that holds all of the quota would use all of it, were it cut off now: it must have let go of a part first.
    v_held_whole := EXISTS (SELECT FROM llm_quota_members
                       WHERE quota_id = a_quota AND member <> a_member AND share_start <= 0 AND share_end >= 1);
    IF v_held_whole THEN
        v_again := greatest(v_again, v_now + 0.2 * v_second);
        room_requests := least(room_requests, 0);
    END IF;

    granted := cardinality(a_take) > 0 AND coalesce(v_again <= v_now, false);
    IF granted THEN
        INSERT INTO llm_quota_entries (quota_id, id, member, tokens, reserved_at, lease_until)
        SELECT a_quota, taken.id, a_member, taken.tokens, v_now, v_now + a_lease_s * v_second
        FROM unnest(a_take, a_sizes) AS taken(id, tokens);
        room_requests := room_requests - v_count;
        room_tokens := room_tokens - v_wanted;
    END IF;
    again_s := CASE WHEN v_again <= v_now THEN 0 ELSE extract(epoch FROM v_again - v_now) END;
    surely_s := CASE WHEN v_surely <= v_now THEN 0 ELSE extract(epoch FROM v_surely - v_now) END;
    SELECT count(*), coalesce(sum(tokens), 0) INTO used_requests, used_tokens
    FROM llm_quota_entries WHERE quota_id = a_quota;
    now_requests := llm_quota_now(a_limits[1], v_quota.steps);
    now_tokens := llm_quota_now(a_limits[2], v_quota.steps);
    blocked_s := CASE WHEN v_quota.blocked_until > v_now THEN extract(epoch FROM v_quota.blocked_until - v_now) END;
    off_steps := v_quota.steps;
    shrunk_s := extract(epoch FROM v_now - v_quota.shrunk_at);
END $$;

COMMENT ON FUNCTION llm_quota_ask IS 'Tell what became of places, take new ones or hear when to ask again.';

UPDATE alembic_version SET version_num='0010' WHERE alembic_version.version_num = '0009';

-- Running upgrade 0010 -> 0011

ALTER TABLE llm_enhancement_tasks ADD COLUMN begun_at TIMESTAMP WITH TIME ZONE;

COMMENT ON COLUMN llm_enhancement_tasks.begun_at IS 'When the worker that holds it began to work on it; null while it waits there.';

ALTER TABLE llm_enhancement_tasks ADD COLUMN deaths SMALLINT DEFAULT 0 NOT NULL;

COMMENT ON COLUMN llm_enhancement_tasks.deaths IS 'How often a process that worked on it died, or stopped renewing its lease.';

COMMENT ON COLUMN llm_enhancement_tasks.attempts IS 'How often work on it was begun.';

COMMENT ON COLUMN llm_analysis_results.attempts IS 'How often work on it was begun.';

UPDATE alembic_version SET version_num='0011' WHERE alembic_version.version_num = '0010';

-- Running upgrade 0011 -> 0012

CREATE INDEX ix_llm_enhancement_tasks_expiring ON llm_enhancement_tasks (expires_at) WHERE status = 'pending' AND expires_at IS NOT NULL;

UPDATE alembic_version SET version_num='0012' WHERE alembic_version.version_num = '0011';

-- Running upgrade 0012 -> 0013

CREATE TABLE control_acts (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    act TEXT NOT NULL,
    via TEXT NOT NULL,
    who TEXT,
    worker TEXT NOT NULL,
    signal_id UUID,
    before JSONB,
    after JSONB,
    reason TEXT,
    CONSTRAINT pk_control_acts PRIMARY KEY (id),
    CONSTRAINT ck_control_acts_via CHECK (via IN ('api','cli','page','sighup'))
);

COMMENT ON TABLE control_acts IS 'Every act that changed a running daemon, or a task by hand. The last pause or resume is what holds.';

COMMENT ON COLUMN control_acts.id IS 'Number of the act, in order.';

COMMENT ON COLUMN control_acts.at IS 'When.';

COMMENT ON COLUMN control_acts.act IS 'pause, resume, limits, model, reload, retry or skip.';

COMMENT ON COLUMN control_acts.via IS 'By which way it came: api, cli, page or sighup.';

COMMENT ON COLUMN control_acts.who IS 'Who, as the caller says; null where it does not.';

COMMENT ON COLUMN control_acts.worker IS 'The process that did it: host and process id.';

COMMENT ON COLUMN control_acts.signal_id IS 'The signal, for retry and skip.';

COMMENT ON COLUMN control_acts.before IS 'What it changed, as it was.';

COMMENT ON COLUMN control_acts.after IS 'The same, as it was from then on.';

COMMENT ON COLUMN control_acts.reason IS 'Why, in the words of whoever did it; null where they gave none.';

CREATE INDEX ix_control_acts_pausing ON control_acts (id) WHERE act IN ('pause','resume');

CREATE INDEX ix_control_acts_signal_id ON control_acts (signal_id);

CREATE TABLE llm_superseded_results (
    id BIGINT NOT NULL,
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
    fallback BOOLEAN NOT NULL,
    prompt_version TEXT,
    rung TEXT,
    repaired BOOLEAN NOT NULL,
    attempts INTEGER NOT NULL,
    call_id UUID,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd NUMERIC,
    processing_ms DOUBLE PRECISION,
    finished_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stored_at TIMESTAMP WITH TIME ZONE NOT NULL,
    xid xid8 NOT NULL,
    route TEXT,
    rating_expected DOUBLE PRECISION,
    rating_entropy DOUBLE PRECISION,
    members SMALLINT,
    agreement DOUBLE PRECISION,
    spread DOUBLE PRECISION,
    stability DOUBLE PRECISION,
    reused_from UUID,
    reused_age_s DOUBLE PRECISION,
    round SMALLINT NOT NULL,
    superseded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_llm_superseded_results PRIMARY KEY (id),
    CONSTRAINT uq_llm_superseded_results_signal_id_round UNIQUE (signal_id, round),
    CONSTRAINT fk_llm_superseded_results_signal_id FOREIGN KEY(signal_id) REFERENCES signals (id) ON DELETE CASCADE
);

COMMENT ON TABLE llm_superseded_results IS 'Results of signals that were retried: what stood in llm_analysis_results before. The CSV files keep their rows.';

COMMENT ON COLUMN llm_superseded_results.id IS 'Row number, in order of writing.';

COMMENT ON COLUMN llm_superseded_results.signal_id IS 'The signal.';

COMMENT ON COLUMN llm_superseded_results.status IS 'completed, failed, expired or skipped.';

COMMENT ON COLUMN llm_superseded_results.rating IS '1 strong reject, 3 neutral, 5 strong confirm; null when none was stated.';

COMMENT ON COLUMN llm_superseded_results.confidence IS 'The model''s own, 0 to 1; null when none was stated.';

COMMENT ON COLUMN llm_superseded_results.action IS 'enter_long, enter_short, exit, hold, move_to_breakeven, enable/disable_trailing.';

COMMENT ON COLUMN llm_superseded_results.rationale IS 'The model''s reason, its own words.';

COMMENT ON COLUMN llm_superseded_results.risks IS 'Risks the model named.';

COMMENT ON COLUMN llm_superseded_results.regime IS 'The market regime the model named.';

COMMENT ON COLUMN llm_superseded_results.abstention IS 'Why a reply was not trusted; null when there is a verdict.';

COMMENT ON COLUMN llm_superseded_results.error IS 'Why there is no reply, for failed, expired and skipped.';

COMMENT ON COLUMN llm_superseded_results.model IS 'Model string that was asked and answered: backend/model.';

COMMENT ON COLUMN llm_superseded_results.answered_model IS 'The model that the reply names, where it names one.';

COMMENT ON COLUMN llm_superseded_results.fallback IS 'True when it was not the first choice that answered.';

COMMENT ON COLUMN llm_superseded_results.prompt_version IS 'Content hash of the prompt.';

COMMENT ON COLUMN llm_superseded_results.rung IS 'The parser''s step that read the reply.';

COMMENT ON COLUMN llm_superseded_results.repaired IS 'True when JSON was mended.';

COMMENT ON COLUMN llm_superseded_results.attempts IS 'How often work on it was begun.';

COMMENT ON COLUMN llm_superseded_results.call_id IS 'The call that gave the reply, in llm_calls.';

COMMENT ON COLUMN llm_superseded_results.prompt_tokens IS 'Input tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN llm_superseded_results.completion_tokens IS 'Output tokens over all calls; null when any is unknown.';

COMMENT ON COLUMN llm_superseded_results.cost_usd IS 'Cost over all calls, USD; null when any is unknown.';

COMMENT ON COLUMN llm_superseded_results.processing_ms IS 'From claim to result, milliseconds; null when no attempt came to an end.';

COMMENT ON COLUMN llm_superseded_results.finished_at IS 'When the result was made.';

COMMENT ON COLUMN llm_superseded_results.stored_at IS 'When the row was written.';

COMMENT ON COLUMN llm_superseded_results.xid IS 'Transaction that wrote the row; what exporters follow.';

COMMENT ON COLUMN llm_superseded_results.route IS 'Why this model was asked: the route''s name and what it stood on.';

COMMENT ON COLUMN llm_superseded_results.rating_expected IS 'The rating''s mean under the token probabilities; null where not had.';

COMMENT ON COLUMN llm_superseded_results.rating_entropy IS 'Entropy of those probabilities over the ratings, bits.';

COMMENT ON COLUMN llm_superseded_results.members IS 'How many of those asked gave a verdict; null where only one was asked.';

COMMENT ON COLUMN llm_superseded_results.agreement IS 'Share of the members'' weight that said the verdict''s action, 0 to 1.';

COMMENT ON COLUMN llm_superseded_results.spread IS 'Weighted standard deviation of the members'' ratings.';

COMMENT ON COLUMN llm_superseded_results.stability IS 'Share of one model''s repeated answers that said the same, 0 to 1.';

COMMENT ON COLUMN llm_superseded_results.reused_from IS 'The earlier signal whose verdict was taken over; null when it was asked for.';

COMMENT ON COLUMN llm_superseded_results.reused_age_s IS 'How old that verdict was at this signal''s close, seconds.';

COMMENT ON COLUMN llm_superseded_results.round IS '1: the signal''s first result, and so on.';

COMMENT ON COLUMN llm_superseded_results.superseded_at IS 'When the retry was asked for.';

CREATE INDEX ix_llm_superseded_results_xid_id ON llm_superseded_results (xid, id);

COMMENT ON COLUMN llm_enhancement_tasks.created_at IS 'When the work was asked for: with its signal, or by a retry.';

UPDATE alembic_version SET version_num='0013' WHERE alembic_version.version_num = '0012';

-- Running upgrade 0013 -> 0014

ALTER TABLE signals ADD COLUMN origin TEXT DEFAULT 'loop' NOT NULL;

COMMENT ON COLUMN signals.origin IS 'Who made it: loop is the strategy here; api, tradingview, freqtrade sent it.';

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
    r.reused_age_s,
    s.origin
FROM signals s
LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
LEFT JOIN llm_analysis_results r ON r.signal_id = s.id;

COMMENT ON COLUMN v_enhanced_signals.origin IS 'Who made it: loop is the strategy here; api, tradingview, freqtrade sent it.';

UPDATE alembic_version SET version_num='0014' WHERE alembic_version.version_num = '0013';

-- Running upgrade 0014 -> 0015

CREATE INDEX ix_signals_close_time_id ON signals (close_time, id);

CREATE INDEX ix_signals_symbol_close_time_id ON signals (symbol, close_time, id);

CREATE INDEX ix_llm_analysis_results_finished_at ON llm_analysis_results (finished_at);

CREATE INDEX ix_llm_calls_started_at ON llm_calls (started_at) INCLUDE (backend, model, cost_usd, error_class);

UPDATE alembic_version SET version_num='0015' WHERE alembic_version.version_num = '0014';

-- Running upgrade 0015 -> 0016

CREATE TABLE llm_queue_clock (
    id BOOLEAN DEFAULT true NOT NULL,
    shown TIMESTAMP WITH TIME ZONE NOT NULL,
    set_before TIMESTAMP WITH TIME ZONE,
    set_on_by INTERVAL,
    CONSTRAINT pk_llm_queue_clock PRIMARY KEY (id),
    CONSTRAINT ck_llm_queue_clock_ck_llm_queue_clock_one_row CHECK (id)
);

COMMENT ON TABLE llm_queue_clock IS 'What the workers know of the clock of PostgreSQL, so that no task is late because it was set.';

COMMENT ON COLUMN llm_queue_clock.id IS 'True: there is one row.';

COMMENT ON COLUMN llm_queue_clock.shown IS 'What the clock of PostgreSQL showed lately.';

COMMENT ON COLUMN llm_queue_clock.set_before IS 'What it showed when it was last found set; null where it never was.';

COMMENT ON COLUMN llm_queue_clock.set_on_by IS 'By how much it was set on then; 0 where it was set back.';

UPDATE alembic_version SET version_num='0016' WHERE alembic_version.version_num = '0015';

-- Running upgrade 0016 -> 0017

CREATE TABLE webhook_cursors (
    endpoint TEXT NOT NULL,
    xid xid8 NOT NULL,
    row_id BIGINT NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT pk_webhook_cursors PRIMARY KEY (endpoint)
);

COMMENT ON TABLE webhook_cursors IS 'How far each webhook follows llm_analysis_results.';

COMMENT ON COLUMN webhook_cursors.endpoint IS 'The webhook, by its name in the settings.';

COMMENT ON COLUMN webhook_cursors.xid IS 'Results of this transaction and earlier ones have been looked at.';

COMMENT ON COLUMN webhook_cursors.row_id IS 'Last result of that transaction that has been looked at.';

COMMENT ON COLUMN webhook_cursors.updated_at IS 'When the cursor last moved.';

CREATE TABLE webhook_deliveries (
    id UUID NOT NULL,
    endpoint TEXT NOT NULL,
    result_id BIGINT NOT NULL,
    signal_id UUID NOT NULL,
    item JSONB NOT NULL,
    status TEXT DEFAULT 'pending' NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    run_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    http_status SMALLINT,
    last_error TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_webhook_deliveries PRIMARY KEY (id),
    CONSTRAINT ck_webhook_deliveries_status CHECK (status IN ('pending','delivered','failed'))
);

COMMENT ON TABLE webhook_deliveries IS 'Messages to webhooks: one for each verdict that one asks for, sent until it is taken or given up.';

COMMENT ON COLUMN webhook_deliveries.id IS 'Its webhook-id is msg_ and this, however often it is sent.';

COMMENT ON COLUMN webhook_deliveries.endpoint IS 'The webhook, by its name in the settings.';

COMMENT ON COLUMN webhook_deliveries.result_id IS 'The result it tells, in llm_analysis_results.';

COMMENT ON COLUMN webhook_deliveries.signal_id IS 'The signal the result belongs to.';

COMMENT ON COLUMN webhook_deliveries.item IS 'The signal with its result, as the API tells it.';

COMMENT ON COLUMN webhook_deliveries.status IS 'pending; delivered and failed are final.';

COMMENT ON COLUMN webhook_deliveries.attempts IS 'How often it was sent.';

COMMENT ON COLUMN webhook_deliveries.run_at IS 'Not to be sent before; while it is being sent, when another may take it for lost.';

COMMENT ON COLUMN webhook_deliveries.http_status IS 'What the last attempt was answered with; null where nothing was.';

COMMENT ON COLUMN webhook_deliveries.last_error IS 'Why the last attempt failed.';

COMMENT ON COLUMN webhook_deliveries.created_at IS 'When the result was found.';

COMMENT ON COLUMN webhook_deliveries.finished_at IS 'When it was delivered, or given up.';

CREATE UNIQUE INDEX uq_webhook_deliveries_endpoint_result_id ON webhook_deliveries (endpoint, result_id);

CREATE INDEX ix_webhook_deliveries_pending ON webhook_deliveries (endpoint, run_at) WHERE status = 'pending';

CREATE INDEX ix_webhook_deliveries_finished_at ON webhook_deliveries (finished_at);

UPDATE alembic_version SET version_num='0017' WHERE alembic_version.version_num = '0016';

-- Running upgrade 0017 -> 0018

CREATE VIEW v_signal_outcomes AS
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
WHERE s.price > 0 AND span.bars = h.bars;

COMMENT ON VIEW v_signal_outcomes IS 'What the market did after each signal, rated or not: one row per signal and horizon that has all of its bars. Computed from the bars as it is read. Where the bars around a signal are no longer kept it has none.';

COMMENT ON COLUMN v_signal_outcomes.signal_id IS 'The signal, in signals.';

COMMENT ON COLUMN v_signal_outcomes.bars IS 'The horizon: so many stored bars after the signal, of its source, symbol and timeframe; 1, 5, 10, 20, 60.';

COMMENT ON COLUMN v_signal_outcomes.until IS 'When the last of them closed, UTC; later than so many bars take where some are missing.';

COMMENT ON COLUMN v_signal_outcomes.close IS 'The last one''s close.';

COMMENT ON COLUMN v_signal_outcomes.forward_return IS 'close / price - 1: the market''s own, above 0 where it rose, whatever the side.';

COMMENT ON COLUMN v_signal_outcomes.mfe IS 'Maximum favourable excursion: how far the best of the bars went the signal''s way, as a fraction of its price, never below 0. Null for exits, which state no direction.';

COMMENT ON COLUMN v_signal_outcomes.mae IS 'Maximum adverse excursion: how far the worst of them went against it, as a fraction that is never above 0. Null for exits.';

UPDATE alembic_version SET version_num='0018' WHERE alembic_version.version_num = '0017';

-- Running upgrade 0018 -> 0019

ALTER TABLE llm_analysis_results ADD COLUMN decision TEXT;

COMMENT ON COLUMN llm_analysis_results.decision IS 'What policy made of it: allow, deny, or review; null where there was no reply.';

ALTER TABLE llm_analysis_results ADD COLUMN decision_reasons TEXT[];

COMMENT ON COLUMN llm_analysis_results.decision_reasons IS 'Why, in words: what decided it first, then the rest.';

ALTER TABLE llm_superseded_results ADD COLUMN decision TEXT;

COMMENT ON COLUMN llm_superseded_results.decision IS 'What policy made of it: allow, deny, or review; null where there was no reply.';

ALTER TABLE llm_superseded_results ADD COLUMN decision_reasons TEXT[];

COMMENT ON COLUMN llm_superseded_results.decision_reasons IS 'Why, in words: what decided it first, then the rest.';

ALTER TABLE llm_analysis_results ADD CONSTRAINT ck_llm_analysis_results_decision CHECK (decision IN ('allow','deny','review'));

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
    r.reused_age_s,
    s.origin,
    r.decision,
    r.decision_reasons
FROM signals s
LEFT JOIN llm_enhancement_tasks t ON t.signal_id = s.id
LEFT JOIN llm_analysis_results r ON r.signal_id = s.id;

COMMENT ON COLUMN v_enhanced_signals.decision IS 'What policy made of it: allow, deny, or review; null where there was no reply.';

COMMENT ON COLUMN v_enhanced_signals.decision_reasons IS 'Why, in words: what decided it first, then the rest.';

UPDATE alembic_version SET version_num='0019' WHERE alembic_version.version_num = '0018';

COMMIT;
