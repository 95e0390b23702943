"""Measures of detections: COCO's APs, mask IoU, boundaries, baselines, agreement with boxes, intervals."""

from boxel.evaluation.agreement import box_agreement, mean_fill
from boxel.evaluation.baselines import fill_boxes, grabcut_boxes
from boxel.evaluation.bootstrap import paired_bootstrap
from boxel.evaluation.coco import coco_ap
from boxel.evaluation.matching import Matches, mask_iou, match_boxes
from boxel.evaluation.results import Result, check_results, read_results
from boxel.evaluation.run import EvaluateConfig, Evaluation, evaluate
from boxel.evaluation.summary import BOX_LIKE, check_baselines, evaluate_detections, format_table
from boxel.evaluation.voc import region_ap

__all__ = [
    "BOX_LIKE",
    "EvaluateConfig",
    "Evaluation",
    "Matches",
    "Result",
    "box_agreement",
    "check_baselines",
    "check_results",
    "coco_ap",
    "evaluate",
    "evaluate_detections",
    "fill_boxes",
    "format_table",
    "grabcut_boxes",
    "mask_iou",
    "match_boxes",
    "mean_fill",
    "paired_bootstrap",
    "read_results",
    "region_ap",
]
