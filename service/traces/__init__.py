"""OpenTelemetry traces: one for each signal, from its bar to its CSV row. Imported where they are wanted only."""
