"""What is kept: bars, signals, tasks, results and calls in PostgreSQL."""
