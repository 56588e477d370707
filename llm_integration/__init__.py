"""From signal to rating: prompts, model calls under a quota, parsing, the worker."""
