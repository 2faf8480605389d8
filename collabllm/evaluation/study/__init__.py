"""A study with people: hidden arms on tasks, ratings and preferences, and their statistics."""
