"""The Python side of nunicorn: runs a WSGI app behind the bridge. Standard library only."""
