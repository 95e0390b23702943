from .boxes import Region as Region
from .boxes import box_iou as box_iou
from .boxes import box_to_pixels as box_to_pixels
from .boxes import normalized_box_coords as normalized_box_coords
from .boxes import paired_box_iou as paired_box_iou
from .boxes import pixel_region as pixel_region
from .boxes import tight_boxes as tight_boxes
from .crops import Crops as Crops
from .crops import crop as crop
from .crops import crop_spans as crop_spans
from .crops import crop_window as crop_window
from .crops import extract_crops as extract_crops
from .crops import resample as resample
from .grabcut import grabcut_from_box as grabcut_from_box
from .grabcut import grabcut_from_ellipse as grabcut_from_ellipse
from .nms import region_nms as region_nms
from .paste import paste_windows as paste_windows
from .rle import Rle as Rle
from .rle import Segmentation as Segmentation
from .rle import decode as decode
from .rle import decode_all as decode_all
from .rle import encode as encode
from .rle import encode_in_box as encode_in_box
from .rle import to_rle as to_rle
from .spans import box_masks as box_masks
from .spans import box_spans as box_spans

__all__ = [
    "Crops",
    "Region",
    "Rle",
    "Segmentation",
    "box_iou",
    "box_masks",
    "box_spans",
    "box_to_pixels",
    "crop",
    "crop_spans",
    "crop_window",
    "decode",
    "decode_all",
    "encode",
    "encode_in_box",
    "extract_crops",
    "grabcut_from_box",
    "grabcut_from_ellipse",
    "normalized_box_coords",
    "paired_box_iou",
    "paste_windows",
    "pixel_region",
    "region_nms",
    "resample",
    "tight_boxes",
    "to_rle",
]
