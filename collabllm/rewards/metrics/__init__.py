"""Metrics, one module a kind."""
