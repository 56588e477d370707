"""What is given to Prometheus and Grafana fits what the daemon tells and keeps, and says what to do."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from database.engine import connect
from service.cli import COMMANDS
from tests.daemon import Look
from tests.promql import unknown
from tests.promtool import promtool
from tests.running import running_daemon
from tests.sql_examples import fill
from tests.waiting import until
from trading.clock import SystemClock

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
GRAFANA = DEPLOY / "grafana"
BOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in (GRAFANA / "dashboards").glob("*.json")}
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
SOURCES = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "tradent.yml").read_text("utf-8"))["datasources"]
VARIABLES = {"instance": ".*", "__rate_interval": "5m", "__interval": "1m"}


def targets(board: dict[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """The queries of a dashboard's panels: which panel, and what it asks."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            if key in target:
                yield panel["title"], target[key]


PROMQL = [(title, expression) for board in BOARDS.values() for title, expression in targets(board, "expr")]


@pytest.mark.parametrize(("title", "expression"), PROMQL)
def test_a_panel_asks_prometheus_for_what_there_is(title: str, expression: str) -> None:
    assert unknown(expression) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_watches_what_there_is_and_says_what_to_do(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert "{{ $labels." in summary
    assert len(description) > 40
    assert set(re.findall(r"`tradent (\w+)", description)) <= set(COMMANDS)


def test_a_name_that_nobody_tells_is_found() -> None:
    assert unknown('sum by (color) (tradent_bars_totl{shape="round"})') == ["tradent_bars_totl", "by (color)"]
    assert unknown('rate(tradent_results_total{status="failed", side="long"}[5m])') == ["tradent_results_total{side}"]
    assert unknown("tradent_submit_seconds") == ["tradent_submit_seconds"]
    assert unknown('tradent_queue_tasks{colour="red"} / tradent_queue_tasks') == ["tradent_queue_tasks{colour}"]


def test_every_alert_is_played_where_it_fires_and_where_it_does_not() -> None:
    played = {test["name"] for test in yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text("utf-8"))["tests"]}
    assert {f"{rule['alert']} {what}" for rule in RULES for what in ("fires", "keeps still")} <= played


def test_prometheus_takes_the_rules_and_the_alerts_fire_when_they_should() -> None:
    promtool("check", "config", "prometheus.yml", cwd=PROMETHEUS)
    promtool("test", "rules", "alerts_test.yml", cwd=PROMETHEUS)


def test_prometheus_can_read_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{number}", "expr": filled(expression)} for number, (_, expression) in enumerate(PROMQL)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    promtool("check", "rules", str(tmp_path / "panels.yml"))


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_dashboard_is_whole(board: dict[str, Any]) -> None:
    """It says what each panel shows, asks a source that is provisioned, and no two panels lie on one another."""
    sources = {source["uid"]: source["type"] for source in SOURCES}
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"].endswith(".")
        assert sources[panel["datasource"]["uid"]] == panel["datasource"]["type"]
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_each_variable_that_grafana_fills_in_is_named_on_the_page() -> None:
    """One of them is how PostgreSQL is reached by TLS: Grafana's driver refuses libpq's `prefer`."""
    page = (DEPLOY.parent / "docs" / "monitoring.md").read_text("utf-8")
    named = set(re.findall(r"\$(\w+)", yaml.safe_dump(SOURCES)))
    assert [name for name in named if f"`{name}`" not in page] == []
    assert "TRADENT_POSTGRES_SSLMODE" in named


def filled(text: str) -> str:
    """An expression with Grafana's variables filled in, as Grafana does."""
    return re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], text)


def as_grafana_sends(sql: str, symbols: list[str], stream: str, hours: int = 1) -> str:
    """A query with Grafana's macros and variables put in; the time is the last hours."""
    until_time = SystemClock().now()
    since = until_time - timedelta(hours=hours)
    quoted = {"symbol": ",".join(f"'{symbol}'" for symbol in symbols), "stream": f"'{stream}'"}
    sql = re.sub(r"\$\{(\w+):sqlstring\}", lambda found: quoted[found[1]], sql)
    sql = sql.replace("$__timeFrom()", f"'{since.isoformat()}'").replace("$__timeTo()", f"'{until_time.isoformat()}'")
    between = f"BETWEEN '{since.isoformat()}' AND '{until_time.isoformat()}'"
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 {between}", sql)
    sql = re.sub(r"\$__timeGroupAlias\(([\w.]+), \$__interval\)", r'floor(extract(epoch from \1)/60)*60 AS "time"', sql)
    assert "$" not in sql
    return sql


SQL = [
    *targets(BOARDS["ratings"], "rawSql"),
    *(("annotation", each["rawQuery"]) for each in BOARDS["ratings"]["annotations"]["list"]),
    *((each["name"], each["query"]) for each in BOARDS["ratings"]["templating"]["list"]),
]
SYMBOLS = ["BTCUSD", "ETHUSD"]
MAY_BE_EMPTY = {"annotation", "Why there is no rating", "What went wrong with calls"}


async def test_every_query_over_postgresql_answers_with_what_is_there(database: str) -> None:
    """Run as Grafana would send them, against a database in which signals were rated."""
    async with running_daemon(database) as daemon:
        await until(lambda: any(result.verdict for _, result in daemon.recent))
        await Look(database).until("SELECT EXISTS (SELECT FROM csv_streams)")
    connection = await connect(database)
    try:
        for title, sql in SQL:
            stream = "simulated SIMBTC 1s"
            rows = await asked(connection, title, as_grafana_sends(sql, ["SIMBTC", "SIMETH"], stream))
            assert rows or title in MAY_BE_EMPTY, title
    finally:
        await connection.close()


async def test_every_query_over_postgresql_is_one_before_the_first_signal(database: str) -> None:
    """ "All" of no symbols is an empty list."""
    connection = await connect(database)
    try:
        for title, sql in SQL:
            await asked(connection, title, as_grafana_sends(sql, [], ""))
    finally:
        await connection.close()


async def test_what_has_no_result_yet_is_shown_as_waiting_and_as_no_result(database: str) -> None:
    """One of nine signals waits, one failed and one was answered with what could not be trusted."""
    connection = await connect(database)
    try:
        await fill(connection)
        shown = {
            title: [tuple(row) for row in await asked(connection, title, as_grafana_sends(sql, SYMBOLS, "", hours=48))]
            for title, sql in targets(BOARDS["ratings"], "rawSql")
        }
    finally:
        await connection.close()
    assert shown["Not final yet"] == [("pending", 1), ("processing", 0)]
    assert shown["Oldest of them"][0][0] >= 0
    assert len(shown["Latest results"]) == 8
    assert {metric for _, metric, _ in shown["Why there is no rating"]} == {"abstained", "failed"}


async def test_a_long_time_shows_the_newest_bars(database: str) -> None:
    sql = dict(targets(BOARDS["ratings"], "rawSql"))["$stream"]
    connection = await connect(database)
    try:
        await fill(connection)
        await connection.execute(
            "INSERT INTO csv_streams (export_id, source, symbol, timeframe, open_time)"
            " SELECT gen_random_uuid(), 'test', 'BTCUSD', '1m', now()"
        )
        few = as_grafana_sends(sql, SYMBOLS, "test BTCUSD 1m", hours=48).replace("LIMIT 5000", "LIMIT 2")
        rows = await asked(connection, "$stream", few)
    finally:
        await connection.close()
    assert [row["close"] for row in rows] == [1058.0, 1059.0]


async def asked(connection: asyncpg.Connection, title: str, sql: str) -> list[Any]:
    """The rows; the panel is named where PostgreSQL refuses its query."""
    try:
        rows: list[Any] = await connection.fetch(sql)
    except asyncpg.PostgresError as error:
        raise AssertionError(f"{title}: {error}") from error
    return rows
