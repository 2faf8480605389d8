"""A page on this machine to talk with one arm, or with two side by side."""
