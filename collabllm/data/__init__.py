"""Package data: the demo material, the generator that turns it into a dataset, and the result."""
