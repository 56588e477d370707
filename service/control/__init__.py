"""Changing a running daemon: pause, limits, model, settings read anew, tasks by hand; every act is kept."""
