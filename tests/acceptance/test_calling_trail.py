"""What is kept of calls, in whole runs: chained, verified, left out where so set, deleted; and what checks measure."""

import json
import re
import signal
from pathlib import Path

from tests.acceptance.world import KEY, MODEL, asking, finished, require_agreement
from tests.daemon import Daemon, Look
from tests.servers import Answer, Json, OpenRouterServer, completion, rating_for

COUNT = "SELECT count(*) FROM llm_calls"
SECRET_RULES = "Judge as the house of Quillon judges."
SECRET_THOUGHT = "Between us, Zanthar says so."


async def verified(daemon: Daemon, *arguments: str) -> tuple[int, list[str]]:
    """Exit status and lines of `audit verify`."""
    status, out, _ = await daemon.do("audit", "verify", *arguments)
    return status, out.splitlines()


def everything_in(folder: Path) -> str:
    """The bytes of every file but what the test itself put there."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "prompts"]
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in files)


async def test_a_trail_is_whole_after_a_kill_and_tells_which_row_was_changed(database: str, tmp_path: Path) -> None:
    """In the database and in the file; each process has a chain of its own."""
    look = Look(database)
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server, audit={"jsonl": "output/llm.audit.jsonl"}), KEY)
        daemon.settings["trading"]["feed"]["speed"] = 6000.0
        daemon.write(daemon.settings)
        async with daemon.start() as running:
            await look.until("SELECT count(*) > 8 FROM llm_calls")
            running.send(signal.SIGKILL)
            await running.ended()
        await finished(daemon)
    await require_agreement(daemon, look, bars=120)
    calls = await look.value(COUNT)
    assert await verified(daemon) == (0, [f"ok    {calls} calls in 2 chains"])
    file = ("--file", "output/llm.audit.jsonl")
    lines = (tmp_path / file[1]).read_bytes().splitlines()
    assert await verified(daemon, *file) == (0, [f"ok    output/llm.audit.jsonl: {len(lines)} calls"])
    in_file = {json.loads(line)["id"]: json.loads(line) for line in lines}
    stored = await look.rows("SELECT id::text, reply, messages::text FROM llm_calls")
    assert len(in_file) == len(lines)
    for call in stored:
        kept = in_file[call["id"]]
        assert (kept["reply"], kept["messages"]) == (call["reply"], json.loads(call["messages"]))
    changed = await look.value("SELECT id FROM llm_calls ORDER BY started_at OFFSET 3 LIMIT 1")
    await look.rows(f"UPDATE llm_calls SET reply = replace(reply, '4', '5') WHERE id = '{changed}'")
    status, out = await verified(daemon)
    assert status == 1
    assert [line for line in out if str(changed) in line and "not as it was written" in line]
    assert len(out) == 2
    gone = await look.value(
        f"DELETE FROM llm_calls WHERE id = (SELECT id FROM llm_calls WHERE id <> '{changed}' "
        "ORDER BY started_at OFFSET 5 LIMIT 1) RETURNING seq"
    )
    status, out = await verified(daemon)
    assert status == 1
    assert [line for line in out if f"1 calls are missing before call {gone + 1}," in line]
    (tmp_path / file[1]).write_bytes(b"\n".join([lines[0], *lines[2:]]) + b"\n")
    status, out = await verified(daemon, *file)
    assert status == 1
    assert out[0].startswith("FAIL  line 2: call 3 of chain")


async def test_nothing_of_prompts_or_replies_is_kept_where_all_is_redacted(database: str, tmp_path: Path) -> None:
    """Not in a table, a file or the log, whatever the server echoes; and what is kept can still be verified."""

    def echo(body: Json) -> Answer:
        turn = len(server.chats) % 3
        if turn == 1:
            said = f"cannot read {json.dumps(body['messages'])}"
            return Answer({"error": {"code": 400, "message": said}}, status=400)
        reply = SECRET_THOUGHT if turn == 2 else f"<think>{SECRET_THOUGHT}</think>{rating_for(None)}"
        return Answer(completion(reply))

    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "mine.system.txt").write_text(SECRET_RULES)
    async with OpenRouterServer(default=echo, models=[{"id": MODEL}]) as server:
        audit = {"jsonl": "output/llm.audit.jsonl", "redact": "everything"}
        prompt = {"prompts_directory": "prompts", "prompt": "mine", "cache_ttl_seconds": 3600}
        own = asking(database, server, bars=60, audit=audit, **prompt)
        own["service"]["log_level"] = "DEBUG"
        daemon = Daemon(tmp_path, own, KEY)
        running = await finished(daemon)
    look = Look(database)
    await require_agreement(daemon, look, bars=60)
    assert all(SECRET_RULES in request.json["messages"][0]["content"] for request in server.chats)
    assert len(server.chats) == await look.value(COUNT) > 10
    for place in (await look.text(), everything_in(tmp_path), running.log):
        assert not re.findall(".{80}(?:house of Quillon|Zanthar).{80}", place)
    assert (await verified(daemon))[0] == 0
    assert (await verified(daemon, "--file", "output/llm.audit.jsonl"))[0] == 0


async def test_old_calls_are_deleted_at_a_start_and_the_trail_stays_whole(database: str, tmp_path: Path) -> None:
    look = Look(database)
    async with OpenRouterServer(models=[{"id": MODEL}]) as server:
        daemon = Daemon(tmp_path, asking(database, server, bars=60), KEY)
        await finished(daemon)
        old = await look.value(COUNT)
        await look.rows("UPDATE llm_calls SET finished_at = finished_at - interval '3 days'")
        daemon.write(asking(database, server, bars=120, audit={"keep_days": 2}))
        await finished(daemon)
    count = await require_agreement(daemon, look, bars=120)
    assert await look.value(COUNT) == count - old > 0
    assert await verified(daemon) == (0, [f"ok    {count - old} calls in 2 chains, {old} more were deleted by age"])
    assert await look.value("SELECT count(rating) FROM v_enhanced_signals") == count
