"""Limits of models and bundles, for those who do no arithmetic."""

MAX_PARAMETERS = 2**26
"""256 MiB of float32: more than a device of this project's kind can train, and a bound for what a manifest
may make it allocate."""

MAX_GRAPH_BYTES = 16 * 2**20
"""Graphs hold no weights: the largest seen has 0.5 MiB. The rest is room for embedded constants."""

MAX_MANIFEST_BYTES = 8 * 2**20
"""10,000 parameters with long names."""

MAX_BUNDLE_BYTES = MAX_MANIFEST_BYTES + 8 * MAX_GRAPH_BYTES + 8 * MAX_PARAMETERS
"""Of one with its files: graphs, frozen and first private weights."""
