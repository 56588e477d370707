"""Verdicts out: each to the webhooks that ask for it, signed, tried again, and kept until it is taken or given up."""
