"""A small Django project on SQLite: one model, a list and a page for each book. For trying things and for measuring."""
