"""Very small detectors of other libraries with random weights that see things."""

import numpy as np
import pytest
import torch

from tests.detection.conftest import make_frame

FRAMES = [make_frame(60, 90, 0), make_frame(96, 64, 1), make_frame(60, 90, 2)]
SIZES = [(60, 90), (96, 64), (60, 90)]


def assert_same(ours, theirs, *, atol=0.02):
    """Compare `Detections` with boxes, scores and labels, both best first."""
    boxes, scores, labels = (np.asarray(part) for part in theirs)
    assert len(ours) == len(boxes) > 0
    np.testing.assert_allclose(ours.boxes_xyxy, boxes, atol=atol)
    np.testing.assert_allclose(ours.scores, scores, atol=1e-4)
    assert ours.labels.tolist() == labels.tolist()


def assert_alike(ours, theirs, *, atol=0.05):
    """Compare `Detections` whose order among equal scores does not matter."""
    assert len(ours) == len(theirs) > 0
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    apart = np.abs(ours.boxes_xyxy[:, None] - theirs.boxes_xyxy[None]).max(axis=2)
    apart += 1e3 * (ours.labels[:, None] != theirs.labels[None])
    assert apart.min(axis=1).max() < atol
    assert apart.min(axis=0).max() < atol


@pytest.fixture(scope="session")
def ssdlite(tmp_path_factory):
    """A file of weights of torchvision's smallest detector."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None
    )
    file = tmp_path_factory.mktemp("torchvision") / "random.pth"
    torch.save(network.state_dict(), file)
    return file


def detr_folder(folder, **options):
    """Write a tiny DETR as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic",
        out_features=["stage2"],
    )  # fmt: skip
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=backbone, use_pretrained_backbone=False,
        d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
        encoder_attention_heads=1, decoder_attention_heads=1, num_queries=6, **options,
    )  # fmt: skip
    network = transformers.DetrForObjectDetection(config)
    for layer in (network.class_labels_classifier, network.bbox_predictor.layers[-1]):
        torch.nn.init.normal_(layer.weight, std=2.0)
    torch.nn.init.normal_(network.model.query_position_embeddings.weight, std=3.0)
    network.save_pretrained(folder)
    size = {"shortest_edge": 64, "longest_edge": 96}
    transformers.DetrImageProcessor(size=size).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def detr(tmp_path_factory):
    return detr_folder(tmp_path_factory.mktemp("detr") / "tiny-detr", num_labels=91)


def onnx_detector(file, outputs, *, inputs=None, metadata=None, initializers=()):
    """Write an ONNX file that gives the same outputs for every image.

    Args:
        outputs: Name to the array of one image; where the batch is, it is expanded.
        inputs: Shape of the images.
        metadata: Key to text.
    """
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    shape = inputs or ["b", 3, 64, 64]
    images = helper.make_tensor_value_info("images", kinds.FLOAT, shape)
    # A zero of each image, added to the constant outputs.
    nodes = [helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2, 3], keepdims=0)]
    nodes.append(helper.make_node("Sub", ["means", "means"], ["zeros"]))
    tensors = list(initializers)
    infos = []
    for name, value in outputs.items():
        tensors.append(numpy_helper.from_array(value[None].astype(np.float32), f"{name}-value"))
        axes = numpy_helper.from_array(np.arange(1, value.ndim + 1, dtype=np.int64), f"{name}-axes")
        tensors.append(axes)
        nodes.append(helper.make_node("Unsqueeze", ["zeros", f"{name}-axes"], [f"{name}-zero"]))
        nodes.append(helper.make_node("Add", [f"{name}-value", f"{name}-zero"], [name]))
        infos.append(helper.make_tensor_value_info(name, kinds.FLOAT, ["b", *value.shape]))
    graph = helper.make_graph(nodes, "detector", [images], infos, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, file)
    return file
