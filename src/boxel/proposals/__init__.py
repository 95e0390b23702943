"""Candidate segments of one image, nothing learned."""

from boxel.proposals.candidates import Candidates
from boxel.proposals.propose import propose
from boxel.proposals.store import SegmentsConfig, make_segments, segments_of

__all__ = ["Candidates", "SegmentsConfig", "make_segments", "propose", "segments_of"]
