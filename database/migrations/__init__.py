"""The schema's history, one alembic revision per file in `versions`; `database.migrate` applies it."""
