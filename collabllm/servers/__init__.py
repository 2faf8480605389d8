"""Model servers: one client for all of them, their answers kept, their tokens counted."""
