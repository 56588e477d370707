"""The tables, as SQLAlchemy sees them; `migrations/` builds them, a test keeps the two alike."""

from database.tables import audit, control, exports, market, money, queue, quota, ratings, replies, webhooks
from database.tables.base import Xid8, metadata

__all__ = [
    "Xid8",
    "audit",
    "control",
    "exports",
    "market",
    "metadata",
    "money",
    "queue",
    "quota",
    "ratings",
    "replies",
    "webhooks",
]
