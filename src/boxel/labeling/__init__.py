"""Masks from boxes: teachers draw them, merge and drop settle them, and a job that can go on makes a set of them."""
