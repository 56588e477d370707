"""Signals from other bots: what they send, read into a signal's fields by pure functions, and how it is taken in."""
