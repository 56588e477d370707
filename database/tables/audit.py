"""How far each chain of hashes over the calls has come."""
