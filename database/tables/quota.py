"""The quota that all processes on one key share."""
