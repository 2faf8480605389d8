"""Fine-tuning: flags, checks before a run, one module a trainer, and what a run leaves behind."""
