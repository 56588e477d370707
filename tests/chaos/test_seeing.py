"""What the comparison is there for: it sees one bar or signal too few or too many, wherever that is."""

from pathlib import Path

from database.engine import connect
from tests.chaos.expected import compare, expected
from tests.chaos.market import market, through
from tests.daemon import Daemon, Look

ONE = "(SELECT signal_id FROM llm_analysis_results ORDER BY id LIMIT 1)"


async def test_one_too_few_or_too_many_is_seen_everywhere(database: str, tmp_path: Path) -> None:
    """First nothing is amiss; then each place in turn is tampered with."""
    daemon, look = Daemon(tmp_path, market(database, bars_a_second=100)), Look(database)
    await through(daemon, 15)
    wanted = await expected(daemon)
    assert len(wanted.bars) == 120
    found = await compare(daemon, look, wanted)
    assert (found.lost, found.doubled, found.wrong) == (0, 0, ())
    assert found.signals == len(wanted.signals) > 20
    for file in ("llm_signals.csv", "llm_strategy_results.csv"):
        path = daemon.csv / file
        whole = path.read_bytes()
        *lines, last = whole.splitlines(keepends=True)
        path.write_bytes(b"".join(lines))
        assert (await compare(daemon, look, wanted)).lost
        path.write_bytes(whole + last)
        assert (await compare(daemon, look, wanted)).doubled
        path.write_bytes(whole)
    connection = await connect(database)
    await connection.execute(f"DELETE FROM llm_analysis_results WHERE signal_id = {ONE}")
    assert (await compare(daemon, look, wanted)).lost == 1
    await connection.execute(f"DELETE FROM signals WHERE id = {ONE}")
    assert (await compare(daemon, look, wanted)).lost > 3
    await connection.execute("UPDATE market_data SET open_time = open_time - interval '1 year' WHERE symbol = 'SIM3'")
    assert (await compare(daemon, look, wanted)).doubled >= 15
    await connection.close()
