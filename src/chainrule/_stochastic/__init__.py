"""Estimates by random probes, scores, and samples that follow a score."""
