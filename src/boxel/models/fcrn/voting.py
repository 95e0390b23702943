"""Instances by voting: each pixel of a class predicts the box of its instance, and pixels that agree form one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou, nms

from boxel.masks.nms import region_nms
from boxel.models.fcrn.config import VotingConfig

BLOCK = 2**16
"""Maximum number of pairs of boxes compared at once."""


class Hypotheses(NamedTuple):
    """Instances of an image, best first.

    The box is the mean over the pixels of the mask, which is closer to the true box than that of the best pixel.
    """

    masks: Tensor  # (N, h, w) bool, on the grid of the votes
    boxes: Tensor  # (N, 4) float, xyxy in the unit of the votes
    scores: Tensor  # (N,) float in [0, 1], the confidence
    labels: Tensor  # (N,) int64 in [0, C)


def vote(scores: Tensor, boxes: Tensor, config: VotingConfig, cell: float = 1.0) -> Hypotheses:
    """Find the instances in an image's class scores and predicted boxes.

    For each class and each n, the pixels that have the class among their n best vote with the box predicted for it.
    Non-maximum suppression of the boxes keeps one per hypothesis; its mask is that pixel and those that it suppressed.
    Region NMS then selects among overlapping masks. With the scores of a true label map (1 for the true class, 0 for
    the others) a pixel votes for its class only.

    Args:
        scores: (C + 1, h, w) float in [0, 1], the class scores of an image's pixels. Class 0 is background, which
            never votes but takes a place among the n best. Classes that tie share the better place, and one whose
            score is 0 gets no vote.
        boxes: (C, 4, h, w) float, xyxy in any unit: the box predicted at each pixel for each class but background.
            Boxes that are not finite or have no area do not vote.
        config: Settings.
        cell: Side of a pixel of the grid, in the unit of the boxes.

    Returns:
        The instances.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.1.
    """
    height, width = scores.shape[1:]
    scores, boxes = scores.float().flatten(1), boxes.flatten(2)
    ballots = _ballots(scores, boxes, config)
    _, label, voter = ballots.nonzero(as_tuple=True)
    box, score = boxes[label, :, voter], scores[label + 1, voter]
    winner = torch.arange(len(voter), device=voter.device)
    for ballot in winner.clone().split(ballots.sum(2).flatten().tolist()):
        if len(ballot) >= config.min_cells:
            winner[ballot] = ballot[_winners(box[ballot], score[ballot], config.nms_iou)]

    # Masks that are too small are dropped before region NMS, where a stray pixel could suppress an instance.
    joined = winner.bincount()[winner] >= config.min_cells
    voter, box, score = voter[joined], box[joined], score[joined]
    found, mask = winner[joined].unique(return_inverse=True)
    counts = mask.bincount()
    confidence = mask.bincount(score) / counts
    mean = torch.zeros(len(found), 4, device=voter.device).index_add(0, mask, box) / counts[:, None]
    if config.confidence == "agreement":
        agreement = mask.bincount(_iou_of_pairs(box, mean[mask])) / counts
        confidence = confidence * agreement * (counts * cell**2 / box_area(mean)).clamp(max=1)
    masks = torch.zeros(len(found), height * width, dtype=torch.bool, device=voter.device)
    masks[mask, voter] = True
    masks = masks.view(-1, height, width)
    kept = region_nms(masks, confidence, label[found], config.region_iou)[: config.max_detections]
    return Hypotheses(masks[kept], mean[kept], confidence[kept], label[found[kept]])


def _ballots(scores: Tensor, boxes: Tensor, config: VotingConfig) -> Tensor:
    """Return (top_n, C, h * w) bool, the pixels that vote for a class in its top-n mask."""
    best = scores.topk(min(config.top_n, len(scores)), 0).values
    sound = boxes.isfinite().all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    classes = scores[1:]
    able = (classes >= config.min_score) & (classes > 0) & sound
    ballots = (classes >= best[:, None]) & able
    # A ballot with the same votes as that of n - 1 would give the same masks again.
    ballots[1:] &= (ballots[1:] != ballots[:-1]).any(2, keepdim=True)
    return ballots


def _iou_of_pairs(a: Tensor, b: Tensor) -> Tensor:
    """Return the (N,) IoU of each of (N, 4) boxes with its counterpart."""
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    return common / (box_area(a) + box_area(b) - common)


def _winners(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Return the (N,) int64 index of the vote that each vote joins.

    That is itself for one that NMS keeps, else the best of those kept that overlap it by more than the threshold.
    """
    boxes = boxes.double()  # two implementations of IoU then agree on what overlaps
    kept = nms(boxes, scores.double(), iou)  # of equal scores the first is the better
    winner = torch.arange(len(boxes), device=boxes.device)
    lost = torch.ones_like(winner, dtype=torch.bool).index_fill(0, kept, False).nonzero().flatten()
    for part in kept.split(max(1, BLOCK // max(1, len(lost)))):  # the best first
        overlap, first = (box_iou(boxes[lost], boxes[part]) > iou).byte().max(1)
        claimed = overlap.bool()
        winner[lost[claimed]] = part[first[claimed]]
        lost = lost[~claimed]
    return winner
