"""Nobody uses a place of the quota twice: a process cut off, a statement that comes late, a clock that is set.

The function that changes the quota's log is made anew, with an answer that says what time it was here.
"""

from importlib import import_module

from alembic import op
from sqlalchemy import Column, Integer, text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

ASK = """
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
END $$
"""
SAID = "Tell what became of places, take new ones or hear when to ask again."


def upgrade() -> None:
    op.add_column(
        "llm_quotas",
        Column("epoch", Integer, nullable=False, server_default=text("0"),
               comment="How often the clock was found set, and the log moved with it."),
    )  # fmt: skip
    op.execute("DROP FUNCTION llm_quota_ask")
    op.execute(ASK)
    op.execute(f"COMMENT ON FUNCTION llm_quota_ask IS '{SAID}'")


def downgrade() -> None:
    op.execute("DROP FUNCTION llm_quota_ask")
    op.execute(import_module("database.migrations.versions.0004_quota").ASK)
    op.execute(f"COMMENT ON FUNCTION llm_quota_ask IS '{SAID}'")
    op.drop_column("llm_quotas", "epoch")
