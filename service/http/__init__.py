"""What the daemon answers over HTTP: one file per part, each with `routes(daemon)`; `server` puts them together."""
