"""How each column of the CSV files is read: s the signal, r its result, m the bar with its signals' ids."""

from collections.abc import Mapping

from llm_integration.csv_rows import Layout

_SIGNAL = {
    "signal_id": "'sig-' || s.id",
    "strategy": "s.strategy",
    "side": "s.side",
    "strength": "s.strength::text::numeric::text",
    "origin": "s.origin",
}

_RESULT = {
    "status": "r.status",
    "rating": "r.rating::text",
    "confidence": "r.confidence::text::numeric::text",
    "action": "r.action",
    "regime": "r.regime",
    "rationale": "r.rationale",
    "risks": "array_to_string(r.risks, ' | ')",
    "abstention": "r.abstention",
    "error": "r.error",
    "model": "r.model",
    "answered_model": "r.answered_model",
    "fallback": "r.fallback::text",
    "prompt_version": "'prompt-' || r.prompt_version",
    "rung": "r.rung",
    "repaired": "r.repaired::text",
    "attempts": "r.attempts::text",
    "prompt_tokens": "r.prompt_tokens::text",
    "completion_tokens": "r.completion_tokens::text",
    "cost_usd": "r.cost_usd::text",
    "processing_ms": "round(r.processing_ms::numeric, 3)::text",
    "call_id": "'call-' || r.call_id",
    "route": "r.route",
    "rating_expected": "round(r.rating_expected::numeric, 4)::text",
    "rating_entropy": "round(r.rating_entropy::numeric, 4)::text",
    "members": "r.members::text",
    "agreement": "round(r.agreement::numeric, 4)::text",
    "spread": "round(r.spread::numeric, 4)::text",
    "stability": "round(r.stability::numeric, 4)::text",
    "reused_from": "'sig-' || r.reused_from",
    "reused_age_s": "round(r.reused_age_s::numeric, 3)::text",
    "decision": "r.decision",
    "decision_reasons": "array_to_string(r.decision_reasons, ' | ')",
}

SIGNAL_CELLS: Mapping[str, str] = {
    **_SIGNAL,
    **_RESULT,
    "close_time": "(s.close_time AT TIME ZONE 'UTC')::text",
    "source": "s.source",
    "symbol": "s.symbol",
    "timeframe": "s.timeframe",
    "price": "s.price::text",
    "created_at": "date_trunc('second', s.created_at AT TIME ZONE 'UTC')::text",
    "finished_at": "date_trunc('second', r.finished_at AT TIME ZONE 'UTC')::text",
}

BAR_CELLS: Mapping[str, str] = {
    **_SIGNAL,
    **_RESULT,
    "open_time": "(m.open_time AT TIME ZONE 'UTC')::text",
    "close_time": "(m.close_time AT TIME ZONE 'UTC')::text",
    "source": "m.source",
    "symbol": "m.symbol",
    "timeframe": "m.timeframe",
    "open": "m.open::text",
    "high": "m.high::text",
    "low": "m.low::text",
    "close": "m.close::text",
    "volume": "m.volume::text",
    "signals": "coalesce(cardinality(m.ids), 0)::text",
    "other_signals": "'sig-' || array_to_string(nullif(m.ids[2:], '{}'), ' sig-')",
}


def selected(layout: Layout, cells: Mapping[str, str], indicators: str, first_parameter: int) -> str:
    """The select list of `layout`, all of it text; the indicators' names are the query's last parameters."""
    fixed = [cells[name] for name, _ in layout.fixed]
    named = [f"{indicators} ->> ${first_parameter + i}::text" for i in range(len(layout.indicators))]
    return ", ".join(fixed + named + [cells[name] for name, _ in layout.added])
