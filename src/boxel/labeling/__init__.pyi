from .api import label as label
from .api import label_data as label_data
from .box_segmenter import BoxMasks as BoxMasks
from .box_segmenter import BoxSegmenter as BoxSegmenter
from .calibration import calibrate as calibrate
from .config import LabelConfig as LabelConfig
from .fusion import LabeledImage as LabeledImage
from .fusion import label_image as label_image
from .overlaps import box_agreement as box_agreement
from .overlaps import resolve_by_confidence as resolve_by_confidence
from .overlaps import resolve_by_size as resolve_by_size
from .quality import Calibration as Calibration
from .quality import compute_cues as compute_cues
from .quality import fit_calibration as fit_calibration
from .quality import load_calibration as load_calibration
from .quality import save_calibration as save_calibration
from .runner import LabelResult as LabelResult
from .teachers import make_teacher as make_teacher
from .teachers.base import SoftMask as SoftMask
from .teachers.base import Teacher as Teacher

__all__ = [
    "BoxMasks",
    "BoxSegmenter",
    "Calibration",
    "LabelConfig",
    "LabelResult",
    "LabeledImage",
    "SoftMask",
    "Teacher",
    "box_agreement",
    "calibrate",
    "compute_cues",
    "fit_calibration",
    "label",
    "label_data",
    "label_image",
    "load_calibration",
    "make_teacher",
    "resolve_by_confidence",
    "resolve_by_size",
    "save_calibration",
]
