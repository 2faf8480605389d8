"""What runs inside the sandbox: standard library only, and nothing here is a secret."""
