from .box_to_mask import ExportedBoxToMask as ExportedBoxToMask
from .detector import ExportedDetector as ExportedDetector
from .file import ExportedModel as ExportedModel
from .file import is_exported as is_exported
from .loading import load_exported as load_exported
from .segmenter import ExportedSegmenter as ExportedSegmenter
