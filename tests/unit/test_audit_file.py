"""The audit file: a call a line, chained so that what was changed, taken out or put in shows."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.audit_chain import first_link, next_link, redacted
from llm_integration.audit_file import AuditFile, call_record, verify_file
from llm_integration.model import Call, Message
from trading.errors import TradentError

AT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def a_call(**changes: object) -> Call:
    call = Call(
        id=uuid4(), signal_ids=(UUID(int=7),), backend="openrouter", model="m", answered_model="m-1", attempt=1,
        prompt_version="abc", messages=(Message("system", "be brief"), Message("user", "rate this")),
        parameters={"temperature": 0.0, "max_tokens": 64}, reply='{"rating": 4}', reply_id="r", finish_reason="stop",
        prompt_tokens=10, completion_tokens=5, cost_usd=Decimal("0.000120"), queue_wait_ms=0.1, latency_ms=12.5,
        started_at=AT, finished_at=AT, http_status=200, error_class=None, error=None,
    )  # fmt: skip
    return replace(call, **changes)  # type: ignore[arg-type]


def written(path: Path, calls: list[Call], redact: str = "nothing") -> list[str]:
    file = AuditFile(path, redact)
    for call in calls:
        file.append([call])
    file.close()
    return path.read_text("utf-8").splitlines()


def test_what_was_written_is_found_whole(tmp_path: Path) -> None:
    written(tmp_path / "calls.jsonl", [a_call(), a_call(), a_call(error="no", error_class="TimedOut")])
    assert verify_file(tmp_path / "calls.jsonl") == (3, [])


def test_a_line_tells_the_call_as_it_was(tmp_path: Path) -> None:
    call = a_call()
    [line] = written(tmp_path / "calls.jsonl", [call])
    record = json.loads(line)
    assert record["messages"] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "rate this"},
    ]  # fmt: skip
    assert (record["reply"], record["cost_usd"], record["id"]) == (call.reply, "0.000120", str(call.id))


@pytest.mark.parametrize(
    "field, value",
    [("rating", None), ("reply", "x"), ("model", "other"), ("cost_usd", "9"), ("latency_ms", 1.0), ("notes", ["a"])],
)
def test_a_changed_call_shows(tmp_path: Path, field: str, value: object) -> None:
    path = tmp_path / "calls.jsonl"
    lines = written(path, [a_call(), a_call(), a_call()])
    record = json.loads(lines[1])
    record["parsed" if field == "rating" else field] = {"rating": 5} if field == "rating" else value
    path.write_text("\n".join([lines[0], json.dumps(record), lines[2]]) + "\n")
    count, [fault] = verify_file(path)
    assert count == 3
    assert fault.startswith("line 2:") and "was changed" in fault


def test_a_call_that_was_taken_out_shows(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    lines = written(path, [a_call(), a_call(), a_call()])
    path.write_text(lines[0] + "\n" + lines[2] + "\n")
    _, [fault] = verify_file(path)
    assert "1 is missing" in fault


def test_lines_in_another_order_show(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    first, second = written(path, [a_call(), a_call()])
    path.write_text(second + "\n" + first + "\n")
    assert len(verify_file(path)[1]) == 2


def test_every_opening_begins_a_chain_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    written(path, [a_call(), a_call()])
    path.write_bytes(path.read_bytes()[:-40])
    written(path, [a_call()])
    count, [fault] = verify_file(path)
    assert count == 3
    assert fault == "line 2: is no record of a call, or was cut off"


def test_texts_can_be_left_out_and_the_chain_still_verified(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    [line] = written(path, [a_call(messages=(Message("user", "a secret plan"),), reply="a secret reply")], "everything")
    assert "secret" not in line
    assert verify_file(path) == (1, [])


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"])), number=st.floats(allow_nan=False),
    cost=st.decimals(0, 1000, places=9),
)  # fmt: skip
def test_redaction_changes_no_hash(text: str, number: float, cost: Decimal) -> None:
    record = call_record(a_call(messages=(Message("user", text),), reply=text, latency_ms=number, cost_usd=cost))
    start = first_link("c")
    assert next_link(start, redacted(record, "everything")) == next_link(start, redacted(record, "nothing"))
    assert next_link(start, redacted(record, "nothing")) == next_link(start, record)


def test_half_a_surrogate_pair_is_written_all_the_same(tmp_path: Path) -> None:
    written(tmp_path / "calls.jsonl", [a_call(reply="\ud800")])
    assert verify_file(tmp_path / "calls.jsonl") == (1, [])


def test_a_disk_that_takes_nothing_is_said_once_and_loses_no_other_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "folder" / "calls.jsonl"
    path.parent.write_text("in the way")
    file = AuditFile(path)
    file.append([a_call()])
    file.append([a_call()])
    path.parent.unlink()
    file.append([a_call()])
    file.close()
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == ["ERROR"]
    assert verify_file(path) == (1, [])


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(TradentError, match="cannot be read"):
        verify_file(Path("nowhere.jsonl"))
