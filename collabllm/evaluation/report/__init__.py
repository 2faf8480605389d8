"""What people read: tables, charts, the page, the viewer."""
