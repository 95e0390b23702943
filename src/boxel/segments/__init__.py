"""Candidate segments of one image, nothing learned."""

from boxel.segments.candidates import Candidates
from boxel.segments.propose import propose
from boxel.segments.store import SegmentsConfig, make_segments, segments_of

__all__ = ["Candidates", "SegmentsConfig", "make_segments", "propose", "segments_of"]
