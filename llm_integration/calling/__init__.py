"""Wrappers that are Backends and hold one: audit, limiter, retry, fallback; `compose` puts them together."""
