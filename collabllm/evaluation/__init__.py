"""Compare models on the same tasks with the same simulated users, and show the conversations."""
