"""A seeded fuzzer: hostile bytes, and signed hostile messages, against all that peers can reach.

`mutator` spoils bytes, `spoiler` spoils fields of messages; `rounds` records real rounds to begin from.
What is attacked: `codec`, `device_half`, `coordinator_half`, `shells`. `campaign` shares the frames out.
Long form: `scripts/fuzz`.
"""
