"""The registrar: issues the certificates of a fleet, and takes them back."""
