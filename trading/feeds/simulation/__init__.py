"""What the simulated feed is made of: a market that is a pure function of seed, symbol, timeframe and time."""
