"""Whether traces are wanted, by the settings or by OpenTelemetry's own variables; without importing any of it."""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import TYPE_CHECKING

from service.settings import ServiceSettings
from trading.clock import Clock
from trading.errors import SettingsError

if TYPE_CHECKING:
    from service.traces.traces import Traces

log = logging.getLogger(__name__)

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
INSTALL = 'pip install "tradent[otel]"'


def traces_of(service: ServiceSettings, clock: Clock) -> Traces | None:
    """What makes traces; None where nobody wants them. Raises SettingsError where they are set and cannot be made.

    A variable of the environment may be meant for other programs: where the extra is missing it is only said.
    """
    by_environment = next((name for name in VARIABLES if os.environ.get(name)), None)
    if service.traces_endpoint is None and by_environment is None:
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        if service.traces_endpoint is not None:
            raise SettingsError([f"service.traces_endpoint: OpenTelemetry is not installed; {INSTALL}"])
        log.warning(f"{by_environment} is set, but OpenTelemetry is not installed: no traces; {INSTALL}")
        return None
    from service.traces.traces import Traces  # noqa: PLC0415 - it imports OpenTelemetry, which takes half a second

    return Traces.sent_to(service.traces_endpoint, clock)
