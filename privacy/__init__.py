"""Pure privacy arithmetic: clipping and quantising. No I/O, clock, randomness or logging."""
