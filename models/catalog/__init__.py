"""Ready forward graphs, one module each."""
