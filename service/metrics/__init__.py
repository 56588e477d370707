"""What Prometheus is told: `table` names every metric and where it is read, `collector` makes families of it."""
