"""Metrics, one module per kind; importing this package registers all of ours."""

from collabllm.rewards import extraction
from collabllm.rewards.metrics import answer, code, facts, judged, text

__all__ = ["answer", "code", "extraction", "facts", "judged", "text"]
