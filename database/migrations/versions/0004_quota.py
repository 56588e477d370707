"""The quota that all processes on one key share: its log, who uses it, and the one function that changes both."""

from alembic import op
from sqlalchemy import BigInteger, Column, DateTime, Double, ForeignKey, Identity, SmallInteger, Text, text
from sqlalchemy.dialects.postgresql import UUID

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = DateTime(timezone=True)
NOW = text("clock_timestamp()")
BUSY = {"fillfactor": "50", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "500",
        "autovacuum_vacuum_cost_delay": "0"}  # fmt: skip

# Everything happens under one lock per quota, on this server's clock; only durations come in and go out. A commit that
# a crash of the server loses is told again by the process it was for, so none waits for the disk.
ASK = """
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
END $$
"""

# The share that a process may use while it cannot reach the database. What others hold is never given twice: where the
# part that it is due overlaps with theirs it gets what it has of it already, and the rest once they have let go. Its
# row says all that it may hold: what it is told now, and what it held when it asked, in case the answer is lost.
SHARE = """
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
END $$
"""

# One window: when so many requests of so many tokens together fit (minus infinity: now; null: it hangs on calls under
# way), before when they surely do not, and what is left. A silent process's share is left alone: its own entries count
# only as far as they go beyond it.
WINDOW = """
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
END $$
"""

NOW_OF = """
CREATE FUNCTION llm_quota_now(a_limit bigint, a_steps int) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a_limit > 0 THEN greatest(1, floor(a_limit * (1 - 0.1 * a_steps)))::bigint END
$$
"""
FUNCTIONS = {
    "llm_quota_now": ("A limit as it stands with so many tenths taken off; null where it is none.", NOW_OF),
    "llm_quota_window": ("When requests fit into one window of a quota.", WINDOW),
    "llm_quota_share": ("The part of a quota that a process may use while it is cut off.", SHARE),
    "llm_quota_ask": ("Tell what became of places, take new ones or hear when to ask again.", ASK),
}


def upgrade() -> None:
    op.create_table(
        "llm_quotas",
        Column("id", Text, primary_key=True,
               comment="Hash of backend, address and key; the key cannot be had from it."),
        Column("backend", Text, nullable=False, comment="First part of the model string."),
        Column("heard_at", TIME, nullable=False, server_default=NOW, comment="When any process last asked."),
        Column("blocked_until", TIME, comment="Until when the server wants no request; null where it never said so."),
        Column("steps", SmallInteger, nullable=False, server_default=text("0"),
               comment="Tenths taken off the limits after 429s."),
        Column("shrunk_at", TIME, comment="When the last was taken off, or came back; null where none ever was."),
        comment="One row per quota: a backend and key that processes share.",
        postgresql_with=BUSY,
    )  # fmt: skip
    op.create_table(
        "llm_quota_members",
        Column("quota_id", Text, ForeignKey("llm_quotas.id", ondelete="CASCADE"), primary_key=True,
               comment="The quota."),
        Column("member", Text, primary_key=True, comment="The process: host and process id."),
        Column("joined", BigInteger, Identity(always=True), nullable=False, comment="In which order they came."),
        Column("heard_at", TIME, nullable=False, comment="When it last asked, silences of all together not counted."),
        Column("share_start", Double, nullable=False,
               comment="The part of every limit it may use while cut off: from ..."),
        Column("share_end", Double, nullable=False, comment="... to, on the way from 0 to 1."),
        comment="The processes on each quota, and what each may use while it cannot reach the database.",
        postgresql_with=BUSY,
    )  # fmt: skip
    op.create_table(
        "llm_quota_entries",
        Column("quota_id", Text, ForeignKey("llm_quotas.id", ondelete="CASCADE"), primary_key=True,
               comment="The quota."),
        Column("id", UUID, primary_key=True, comment="The place."),
        Column("member", Text, nullable=False, comment="The process that has it."),
        Column("tokens", BigInteger, nullable=False, comment="Tokens reserved, then used."),
        Column("reserved_at", TIME, nullable=False, comment="When it was taken."),
        Column("counted_at", TIME,
               comment="When the server counted it at the latest; null while the call is under way."),
        Column("lease_until", TIME, nullable=False,
               comment="When a call that nobody tells the end of counts no more."),
        comment="The sliding log: every request that counts against a quota now. Kept small by whoever asks.",
        postgresql_with=BUSY,
    )  # fmt: skip
    for name, (said, function) in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"COMMENT ON FUNCTION {name} IS '{said}'")


def downgrade() -> None:
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
    for table in ("llm_quota_entries", "llm_quota_members", "llm_quotas"):
        op.drop_table(table)
