"""Pure privacy arithmetic: clipping, quantising and accounting. No I/O, clock, randomness or logging."""
