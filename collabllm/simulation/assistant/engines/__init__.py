"""Engines: token ids in, token ids out, many callers at once."""
