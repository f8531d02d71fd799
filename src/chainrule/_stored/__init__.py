"""Jacobians that are larger than memory: in pieces, and on disk."""
