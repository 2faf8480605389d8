"""CollabLLM: train chat models to collaborate over many turns."""

__version__ = "0.1.0"
