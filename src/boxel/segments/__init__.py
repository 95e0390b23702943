"""Candidate segments of one image, nothing learned."""
