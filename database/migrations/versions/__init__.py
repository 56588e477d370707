"""One revision per file, numbered in order; what has been released is never edited."""
