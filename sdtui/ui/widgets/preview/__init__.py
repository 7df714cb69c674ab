"""The picture: one interface for whatever can show it, and the ways there are."""
