"""Bars and calls in partitions by month, so that old ones go by dropping a table; the rows stay where they are."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

PARTITIONS = r"""
CREATE FUNCTION tradent_partitions(a_parent text)
RETURNS TABLE (name text, lower_bound timestamptz, upper_bound timestamptz) LANGUAGE sql STABLE AS $$
    SELECT child.relname::text, replace(bounds[1], 'MINVALUE', '-infinity')::timestamptz,
           replace(bounds[2], 'MAXVALUE', 'infinity')::timestamptz
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    CROSS JOIN LATERAL regexp_match(pg_get_expr(child.relpartbound, child.oid),
                                    'FROM \(''?([^'')]+)''?\) TO \(''?([^'')]+)''?\)') bounds
    WHERE inhparent = to_regclass(a_parent) AND child.relkind = 'r' AND bounds IS NOT NULL
    ORDER BY 2
$$
"""
# The months are cut off the last partition, which takes whatever is later; rows it has of them go along. There is no
# default partition: with bounds on both sides the newest partitions are read first, and those before not at all.
UNTIL = """
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
END $$
"""
FUNCTIONS = {
    "tradent_partitions(text)": ("The partitions of a table and the times they hold, oldest first.", PARTITIONS),
    "tradent_partitions_until(text, timestamptz)":
        ("Makes the months up to a time, at most 24, and returns how many; for the daemon, or a restricted role''s "
         "administrator.", UNTIL),
}  # fmt: skip

# What stands on a table goes on standing on the one that takes its name: views, those of users too, and grants.
REPLACE = """
DO $do$
DECLARE
    v_view record;
    v_grant record;
    v_views CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(view.oid::regclass::text, pg_get_viewdef(view.oid))), '[]')
        FROM (SELECT DISTINCT c.oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
              JOIN pg_class c ON c.oid = r.ev_class
              WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = '{table}'::regclass AND c.relkind = 'v') view);
    v_grants CONSTANT jsonb := (
        SELECT coalesce(jsonb_agg(jsonb_build_array(privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC'
            ELSE grantee::regrole::text END, is_grantable)), '[]')
        FROM pg_class, aclexplode(relacl) WHERE oid = '{table}'::regclass AND grantee <> relowner);
BEGIN
{body}
    FOR v_view IN SELECT item ->> 0 AS name, item ->> 1 AS definition FROM jsonb_array_elements(v_views) item LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', v_view.name, v_view.definition);
    END LOOP;
    FOR v_grant IN SELECT item ->> 0 AS what, item ->> 1 AS whom, (item ->> 2)::boolean AS further
                   FROM jsonb_array_elements(v_grants) item LOOP
        EXECUTE format('GRANT %s ON {table} TO %s%s', v_grant.what, v_grant.whom,
                       CASE WHEN v_grant.further THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END $do$
"""
# The table with all its rows becomes the first partition, up to the end of this month. What is later still, which a
# simulated market or a wrong clock makes, goes into the last one.
PARTITION = """
    v_bound := (date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
                + CASE WHEN EXISTS (SELECT FROM {table}) THEN interval '1 month' ELSE -interval '{behind} months' END)
               AT TIME ZONE 'UTC';
    ALTER TABLE {table} RENAME TO {table}_earlier;
    {prepare}
    CREATE TABLE {table} (LIKE {table}_earlier INCLUDING DEFAULTS INCLUDING COMMENTS {identity})
        PARTITION BY RANGE ({key});
    COMMENT ON TABLE {table} IS '{comment}';
    {indexes}
    {settle}
    CREATE TABLE {table}_later (LIKE {table} INCLUDING ALL EXCLUDING IDENTITY);
    EXECUTE format('WITH moved AS (DELETE FROM {table}_earlier WHERE {key} >= %L RETURNING *) '
                   'INSERT INTO {table}_later SELECT * FROM moved', v_bound);
    EXECUTE format('ALTER TABLE {table} ATTACH PARTITION {table}_earlier FOR VALUES FROM (MINVALUE) TO (%L)', v_bound);
    EXECUTE format('ALTER TABLE {table} ATTACH PARTITION {table}_later FOR VALUES FROM (%L) TO (MAXVALUE)', v_bound);
    COMMENT ON TABLE {table}_earlier IS NULL;
    PERFORM tradent_partitions_until('{table}', clock_timestamp() + interval '2 months');
"""
BARS = {
    "table": "market_data",
    "key": "open_time",
    "behind": "12",
    "comment": "One row per closed bar. Bars of one source, symbol and timeframe are stored in order, each once.",
    "identity": "INCLUDING IDENTITY",
    "prepare": """
    ALTER SEQUENCE market_data_id_seq RENAME TO market_data_earlier_id_seq;
    ALTER TABLE market_data_earlier DROP CONSTRAINT pk_market_data;
    ALTER TABLE market_data_earlier DROP CONSTRAINT uq_market_data_source_symbol_timeframe_open_time;
    ALTER TABLE market_data_earlier ADD CONSTRAINT market_data_earlier_pkey
        PRIMARY KEY (source, symbol, timeframe, open_time);
    ALTER INDEX ix_market_data_xid_id RENAME TO market_data_earlier_xid_id_idx;
    """,
    "indexes": """
    ALTER TABLE market_data ADD CONSTRAINT pk_market_data PRIMARY KEY (source, symbol, timeframe, open_time);
    CREATE INDEX ix_market_data_xid_id ON market_data (xid, id);
    """,
    "settle": """
    PERFORM setval('market_data_id_seq', last_value, is_called) FROM market_data_earlier_id_seq;
    ALTER TABLE market_data_earlier ALTER COLUMN id DROP IDENTITY;
    """,
}
CALLS = {
    "table": "llm_calls",
    "key": "started_at",
    "behind": "0",
    "comment": "Every request to a model, failed ones too: the audit trail, and what the quota remembers at start.",
    "identity": "",
    "prepare": """
    ALTER TABLE llm_calls_earlier DROP CONSTRAINT pk_llm_calls;
    ALTER TABLE llm_calls_earlier DROP CONSTRAINT uq_llm_calls_chain_seq;
    ALTER TABLE llm_calls_earlier ADD CONSTRAINT llm_calls_earlier_pkey PRIMARY KEY (id, started_at);
    CREATE INDEX llm_calls_earlier_chain_seq_idx ON llm_calls_earlier (chain, seq);
    ALTER INDEX ix_llm_calls_signal_ids RENAME TO llm_calls_earlier_signal_ids_idx;
    ALTER INDEX ix_llm_calls_backend_finished_at RENAME TO llm_calls_earlier_backend_finished_at_idx;
    """,
    "indexes": """
    ALTER TABLE llm_calls ADD CONSTRAINT pk_llm_calls PRIMARY KEY (id, started_at);
    CREATE INDEX ix_llm_calls_chain_seq ON llm_calls (chain, seq);
    CREATE INDEX ix_llm_calls_signal_ids ON llm_calls USING gin (signal_ids);
    CREATE INDEX ix_llm_calls_backend_finished_at ON llm_calls (backend, finished_at);
    """,
    "settle": "",
}
# One table again, its rows copied.
GATHER = """
    ALTER TABLE {table} RENAME TO {table}_parts;
    {loosen}
    CREATE TABLE {table} (LIKE {table}_parts INCLUDING DEFAULTS INCLUDING COMMENTS {identity});
    COMMENT ON TABLE {table} IS '{comment}';
    INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM {table}_parts;
    {restore}
"""
GATHERED = {
    "market_data": {
        "loosen": "ALTER SEQUENCE market_data_id_seq RENAME TO market_data_parts_id_seq;",
        "restore": """
    PERFORM setval('market_data_id_seq', last_value, is_called) FROM market_data_parts_id_seq;
    ALTER INDEX pk_market_data RENAME TO pk_market_data_parts;
    ALTER TABLE market_data ADD CONSTRAINT pk_market_data PRIMARY KEY (id);
    ALTER TABLE market_data ADD CONSTRAINT uq_market_data_source_symbol_timeframe_open_time
        UNIQUE (source, symbol, timeframe, open_time);
    DROP INDEX ix_market_data_xid_id;
    CREATE INDEX ix_market_data_xid_id ON market_data (xid, id);
    """,
    },
    "llm_calls": {
        "loosen": "",
        "restore": """
    ALTER INDEX pk_llm_calls RENAME TO pk_llm_calls_parts;
    ALTER TABLE llm_calls ADD CONSTRAINT pk_llm_calls PRIMARY KEY (id);
    ALTER TABLE llm_calls ADD CONSTRAINT uq_llm_calls_chain_seq UNIQUE (chain, seq);
    DROP INDEX ix_llm_calls_chain_seq, ix_llm_calls_signal_ids, ix_llm_calls_backend_finished_at;
    CREATE INDEX ix_llm_calls_signal_ids ON llm_calls USING gin (signal_ids);
    CREATE INDEX ix_llm_calls_backend_finished_at ON llm_calls (backend, finished_at);
    """,
    },
}


def upgrade() -> None:
    for name, (said, function) in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"COMMENT ON FUNCTION {name} IS '{said}'")
    for words in (BARS, CALLS):
        replace(words, PARTITION, declared="v_bound timestamptz;")


def downgrade() -> None:
    for words in (BARS, CALLS):
        replace({**words, **GATHERED[words["table"]]}, GATHER)
        op.execute(f"DROP TABLE {words['table']}_parts")
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")


def replace(words: dict[str, str], body: str, declared: str = "") -> None:
    """Put another table in the place of one, by the statements of `body`."""
    block = REPLACE.format(table=words["table"], body=body.format(**words))
    op.execute(block.replace("DECLARE\n", f"DECLARE\n    {declared}\n" if declared else "DECLARE\n", 1))
