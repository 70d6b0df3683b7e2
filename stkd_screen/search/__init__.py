"""Similarity search: an index over an embedded library, and questions to it."""
