from .affinity import EdgeCounts as EdgeCounts
from .affinity import count_edges as count_edges
from .affinity import format_edges as format_edges
from .baselines import check_baselines as check_baselines
from .baselines import fill_boxes as fill_boxes
from .baselines import grabcut_boxes as grabcut_boxes
from .bootstrap import paired_bootstrap as paired_bootstrap
from .boxes import BOX_LIKE as BOX_LIKE
from .boxes import box_agreement as box_agreement
from .boxes import compare_masks as compare_masks
from .boxes import format_masks as format_masks
from .boxes import instance_ious as instance_ious
from .boxes import mask_iou_metrics as mask_iou_metrics
from .boxes import mean_fill as mean_fill
from .boxes import measure_masks as measure_masks
from .boxes import quality_metrics as quality_metrics
from .coco import BoxMatches as BoxMatches
from .coco import coco_ap as coco_ap
from .coco import mask_iou as mask_iou
from .coco import match_boxes as match_boxes
from .config import AffinityConfig as AffinityConfig
from .config import EvaluateConfig as EvaluateConfig
from .proposals import best_candidate_ious as best_candidate_ious
from .proposals import candidate_ious as candidate_ious
from .results import Result as Result
from .results import check_results as check_results
from .results import read_results as read_results
from .results import to_annotations as to_annotations
from .results import to_results as to_results
from .run import Evaluation as Evaluation
from .run import evaluate as evaluate
from .run import predict_dataset as predict_dataset
from .semantic import TRIMAP_WIDTHS as TRIMAP_WIDTHS
from .semantic import band_confusions as band_confusions
from .semantic import boundary_distance as boundary_distance
from .semantic import confusion as confusion
from .semantic import measure_label_maps as measure_label_maps
from .semantic import measure_segmenter as measure_segmenter
from .semantic import semantic_metrics as semantic_metrics
from .semantic import trimap_metrics as trimap_metrics
from .summary import evaluate_detections as evaluate_detections
from .summary import format_detections as format_detections
from .tune_crf import best_crf as best_crf
from .tune_crf import format_trials as format_trials
from .tune_crf import tune_crf as tune_crf
from .voc import region_ap as region_ap

__all__ = [
    "BOX_LIKE",
    "TRIMAP_WIDTHS",
    "AffinityConfig",
    "BoxMatches",
    "EdgeCounts",
    "EvaluateConfig",
    "Evaluation",
    "Result",
    "band_confusions",
    "best_candidate_ious",
    "best_crf",
    "boundary_distance",
    "box_agreement",
    "candidate_ious",
    "check_baselines",
    "check_results",
    "coco_ap",
    "compare_masks",
    "confusion",
    "count_edges",
    "evaluate",
    "evaluate_detections",
    "fill_boxes",
    "format_detections",
    "format_edges",
    "format_masks",
    "format_trials",
    "grabcut_boxes",
    "instance_ious",
    "mask_iou",
    "mask_iou_metrics",
    "match_boxes",
    "mean_fill",
    "measure_label_maps",
    "measure_masks",
    "measure_segmenter",
    "paired_bootstrap",
    "predict_dataset",
    "quality_metrics",
    "read_results",
    "region_ap",
    "semantic_metrics",
    "to_annotations",
    "to_results",
    "trimap_metrics",
    "tune_crf",
]
