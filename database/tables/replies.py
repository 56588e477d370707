"""Replies kept for requests that are exactly equal."""
