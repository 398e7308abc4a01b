"""The pure protocol: what is said, when, and by whom. No I/O, clock, randomness or logging."""
