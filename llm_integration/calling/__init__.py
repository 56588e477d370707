"""Wrappers that are Backends and hold one: audit, limiter, breaker, retry, fallback; `compose` puts them together."""
