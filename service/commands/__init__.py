"""What the command line can do: a file per command, each with its `COMMAND`; `service.cli` has the table of them."""
