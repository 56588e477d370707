"""What HTTP backends share: one pooled session, one way to send, one way to read replies and failures."""

from llm_integration.backends.wire.http import Fetched, Wire

__all__ = ["Fetched", "Wire"]
