"""Training engines, one module each, behind one interface."""
