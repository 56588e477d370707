"""From market to signal: feeds, indicators, strategies and the loop that joins them."""
