"""Pure secure aggregation: keys, masks, shares, graph. No I/O, clock, randomness or logging."""
