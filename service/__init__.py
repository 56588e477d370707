"""The process: wiring, lifecycle, terminal and status endpoint."""
