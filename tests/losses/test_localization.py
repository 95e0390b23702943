import pytest
import torch

from boxel.losses.localization import bootstrapped_box_loss, pixel_box_iou, size_weights

TRUE = torch.tensor([1.0, -2.0, 4.0, 4.0])  # offset down, offset right, height, width


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ([0, 0, 0, 0], 1),
        ([2, 0, 0, 0], 8 / 24),  # half of it shared: 8 of 16 + 16 - 8
        ([0, 2, 0, 0], 8 / 24),
        ([1, -2, 0, 0], 6 / 26),
        ([0, 0, -2, 0], 8 / 16),  # half as high, within
        ([0, 0, 4, 4], 16 / 64),
        ([4, 0, 0, 0], 0),  # side by side
        ([9, 9, 0, 0], 0),  # apart in both directions
        ([0, 0, -5, 0], 0),  # a negative height counts as 0
        ([0, 0, -5, -5], 0),  # and two of them make no area
    ],
)
def test_iou_by_hand(moved, expected):
    moved = TRUE + torch.tensor(moved)
    for scale in (1, 32):  # the unit is the caller's
        iou = pixel_box_iou(moved[None] / scale, TRUE[None] / scale)
        torch.testing.assert_close(iou, torch.tensor([float(expected)]))
    maps = pixel_box_iou(moved.view(1, 4, 1, 1).expand(2, 4, 3, 5), TRUE.view(1, 4, 1, 1))
    torch.testing.assert_close(maps, torch.full((2, 3, 5), float(expected)))


def test_iou_of_empty_boxes_is_zero():
    assert pixel_box_iou(torch.zeros(1, 4), torch.zeros(1, 4)) == 0


@pytest.fixture
def two_pixels():
    """One of a 2 x 2 box, missed by 2 down: IoU 0, loss 1.5. One of 100 x 100, missed by 5 and 5: IoU 0.82, loss 9."""
    target = torch.tensor([[0.0, 0, 2, 2], [0, 0, 100, 100]])
    predicted = (target + torch.tensor([[2.0, 0, 0, 0], [5, 5, 0, 0]])).requires_grad_()
    return predicted, target, torch.tensor([True, True])


def test_pixels_are_ranked_by_iou_and_not_by_loss(two_pixels):
    predicted, target, _ = two_pixels
    torch.testing.assert_close(pixel_box_iou(predicted, target)[1], torch.tensor(9025 / (20000 - 9025)))
    assert bootstrapped_box_loss(*two_pixels, min_kept=None) == (1.5 + 9) / 2
    assert bootstrapped_box_loss(*two_pixels, min_kept=1, threshold=0.9) == (1.5 + 9) / 2
    for threshold in (None, 0.8):
        loss = bootstrapped_box_loss(*two_pixels, min_kept=1, threshold=threshold)
        assert loss == 1.5
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert gradient.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_the_loss_turns_linear_at_1(two_pixels):
    # Of an error d: d^2 / 2 up to 1, and d - 1 / 2 from there.
    assert bootstrapped_box_loss(*two_pixels, min_kept=None) == ((2 - 0.5) + 2 * (5 - 0.5)) / 2
    pred, gt, valid = two_pixels
    assert bootstrapped_box_loss(pred / 8, gt / 8, valid, min_kept=None) == (0.25**2 + 2 * 0.625**2) / 4


def test_maps_are_rows_of_pixels():
    torch.manual_seed(0)
    predicted, target = torch.randn(2, 4, 5, 6), torch.rand(2, 4, 5, 6)
    valid, weights = torch.rand(2, 5, 6) < 0.7, torch.rand(2, 5, 6)
    rows = [x.movedim(1, -1).flatten(0, 2) for x in (predicted, target)]
    torch.testing.assert_close(
        bootstrapped_box_loss(predicted, target, valid, 20, 0.1, weights),
        bootstrapped_box_loss(*rows, valid.flatten(), 20, 0.1, weights.flatten()),
    )


def test_weights_are_scaled_to_a_mean_of_one_over_the_valid_pixels(two_pixels):
    predicted, target, _ = two_pixels
    predicted, target = (torch.cat([x, torch.ones(1, 4)]) for x in (predicted, target))
    valid = torch.tensor([True, True, False])
    for scale in (1, 1000):  # 3 and 1 become 1.5 and 0.5; that of the third does not count
        options = {"weights": scale * torch.tensor([3.0, 1, torch.inf])}
        assert bootstrapped_box_loss(predicted, target, valid, None, **options) == (1.5 * 1.5 + 0.5 * 9) / 2
        assert bootstrapped_box_loss(predicted, target, valid, 1, **options) == 1.5 * 1.5


def test_weights_follow_the_size_of_the_instance():
    boxes = torch.tensor([[3.0, 1, 2, 8], [-7, 0, 8, 2], [0, 0, 10, 10]])
    torch.testing.assert_close(size_weights(boxes), torch.tensor([1 / 16, 1 / 16, 1 / 100]))
    torch.testing.assert_close(size_weights(boxes, power=0.5), torch.tensor([1 / 4, 1 / 4, 1 / 10]))
    assert (size_weights(boxes, power=0) == 1).all()
    # So all the pixels of a large box count as much as all those of a small one.
    valid = torch.ones(104, dtype=torch.bool)
    target = torch.tensor([[0.0, 0, 2, 2]] * 4 + [[0.0, 0, 10, 10]] * 100)
    predicted = target.clone().requires_grad_()
    off = torch.ones(104, 1) * torch.tensor([1.0, 0, 0, 0])
    loss = bootstrapped_box_loss(predicted + off, target, valid, None, weights=size_weights(target))
    loss.backward()
    torch.testing.assert_close(predicted.grad[:4, 0].sum(), torch.tensor(0.5))
    torch.testing.assert_close(predicted.grad[4:, 0].sum(), torch.tensor(0.5))


@pytest.mark.parametrize("min_kept", [None, 3])
@pytest.mark.parametrize("pixels", [0, 5])
def test_no_valid_pixel_gives_zero_and_no_nan(pixels, min_kept):
    predicted = torch.randn(pixels, 4, requires_grad=True)
    target = torch.zeros(pixels, 4)
    valid = torch.zeros(pixels, dtype=torch.bool)
    loss = bootstrapped_box_loss(predicted, target, valid, min_kept, weights=size_weights(target))
    assert loss == 0
    loss.backward()
    assert (predicted.grad == 0).all()


def test_half_precision_is_converted():
    predicted = torch.full((1, 4), 300.0, dtype=torch.half)  # an area that overflows half precision
    target, weights = predicted.float() + 1, torch.ones(1).half()
    loss = bootstrapped_box_loss(predicted, target, torch.tensor([True]), 1, weights=weights)
    assert loss.dtype == torch.float32 and loss == 2
    # From 150.5 to 450 is shared, of 150 to 450 and 150.5 to 451.5.
    shared = 299.5**2
    expected = torch.tensor([shared / (300**2 + 301**2 - shared)])
    torch.testing.assert_close(pixel_box_iou(predicted, target), expected)


def test_nothing_synchronizes_with_the_device():
    """On the meta device, values are not available and shapes cannot depend on them."""
    predicted = torch.zeros(2, 4, 3, 3, device="meta", requires_grad=True)
    target = torch.zeros(2, 4, 3, 3, device="meta")
    valid = torch.zeros(2, 3, 3, device="meta", dtype=torch.bool)
    bootstrapped_box_loss(predicted, target, valid, 5, 0.5, size_weights(target)).backward()
    assert predicted.grad.shape == predicted.shape
