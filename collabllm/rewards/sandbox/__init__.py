"""Model-written code, run apart from everything else."""
