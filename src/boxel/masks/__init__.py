"""Geometry of masks and boxes: run-length codes, tight boxes, boxes on a stride's grid, pasting."""
