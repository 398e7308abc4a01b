"""What federated averaging reaches on real data, beside published numbers; no network and no masks."""
