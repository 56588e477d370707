"""Results as the CSV files have them, those that a retry took the place of among them: a row once written stays."""

from database.tables.control import RESULT_COLUMNS

_CELLS = ", ".join(RESULT_COLUMNS)

EVERY_RESULT = f"(SELECT {_CELLS} FROM llm_analysis_results UNION ALL SELECT {_CELLS} FROM llm_superseded_results)"
"""All of them, each under the number it was written with."""


def first_result_of(signal: str) -> str:
    """What a signal ended with first, whatever a retry brought later: for LEFT JOIN."""
    return f"""LATERAL (
    SELECT {_CELLS} FROM llm_analysis_results now WHERE now.signal_id = {signal}
      AND NOT EXISTS (SELECT FROM llm_superseded_results old WHERE old.signal_id = {signal})
    UNION ALL
    SELECT {_CELLS} FROM llm_superseded_results old WHERE old.signal_id = {signal} AND old.round = 1
) r ON true"""
