"""A real llama-server with a tiny random model, for tests: built from source, nothing downloaded but that."""
