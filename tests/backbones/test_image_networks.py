"""torchvision models and CIFAR ResNets: weights, preprocessing, layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.backbones.preprocessing import ImagePreprocessing
from debugnet.errors import InputError, UsageError
from debugnet.registry import BACKBONES

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def pictures(n, size=(80, 64)):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(n)]


def test_the_written_list_is_torchvisions():
    registered = [n for n, e in BACKBONES.items() if e.target.startswith("debugnet.backbones.torchvision_models")]
    assert set(models.list_models(module=models)) <= set(registered)


def test_a_file_with_its_own_number_of_classes(resnet18_weights):
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    backbone = load_backbone(BackboneSpec("resnet18", weights=str(resnet18_weights), image_size=64), "cpu")
    assert torch.equal(torch.rand(3), expected)  # the caller's random stream is left alone
    batch = backbone.collate(pictures(3))
    assert batch.shape == (3, 64, 64, 3) and batch.dtype == torch.uint8
    with torch.no_grad():
        features, logits = backbone.features(batch, logits=True)
    assert (backbone.layer, backbone.feature_dim, backbone.class_names) == ("fc", 512, None)
    np.testing.assert_allclose(features.numpy() @ backbone.head.weight.T + backbone.head.bias, logits, atol=1e-4)
    assert not backbone.network.training and not any(p.requires_grad for p in backbone.network.parameters())


def test_pixels_and_normalized_floats_give_the_same_features(resnet18_weights):
    backbone = load_backbone(BackboneSpec("resnet18", weights=str(resnet18_weights), image_size=64), "cpu")
    pixels = backbone.collate(pictures(2))
    floats = backbone.normalize(pixels.permute(0, 3, 1, 2).float() / 255).requires_grad_()
    features = backbone.features(floats)
    torch.testing.assert_close(features, backbone.features(pixels))
    features[:, 7].sum().backward()
    assert floats.grad is not None and floats.grad.abs().sum() > 0
    single = torch.cat([backbone.features(backbone.collate([image])) for image in pictures(2)])
    torch.testing.assert_close(single, features, atol=1e-4, rtol=1e-4)  # batch invariance
    assert torch.equal(backbone.features(pixels), backbone.features(pixels))  # determinism


def test_any_layer_with_pooling(resnet18_weights):
    spec = BackboneSpec("resnet18", weights=str(resnet18_weights), image_size=64)
    last = load_backbone(spec, "cpu")
    pooled = load_backbone(BackboneSpec(**{**spec.to_json(), "layer": "layer4"}), "cpu")
    batch = last.collate(pictures(2))
    torch.testing.assert_close(pooled.features(batch), last.features(batch))
    assert pooled.head is not None  # averaged, it is the decision layer's input
    inner = load_backbone(BackboneSpec(**{**spec.to_json(), "layer": "layer2.0.conv1", "pooling": "max"}), "cpu")
    assert inner.feature_dim == 128 and inner.head is None
    with pytest.raises(UsageError, match="--layer layer9: .* for example layer4"):
        load_backbone(BackboneSpec(**{**spec.to_json(), "layer": "layer9"}), "cpu")
    with pytest.raises(UsageError, match="--pool max is for --layer"):
        load_backbone(BackboneSpec(**{**spec.to_json(), "pooling": "max"}), "cpu")


@pytest.mark.parametrize(
    "name", ["ResNet50_Weights.IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2", "EfficientNet_B3_Weights.DEFAULT"]
)
def test_preprocessing_is_torchvisions(name):
    preset = models.get_weight(name).transforms()
    ours = ImagePreprocessing.of_preset(preset)
    rng = np.random.default_rng(1)
    for size in [(500, 375), (375, 500), (160, 213), (ours.resize_size, 400), (31, 1000)]:
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        pixels = ours.to_pixels(image).permute(2, 0, 1)[None].float() / 255
        torch.testing.assert_close(ours.normalize(pixels)[0], preset(image), atol=1e-6, rtol=0)


def test_odd_images_become_rgb():
    preprocessing = ImagePreprocessing(16, 16)
    for mode in ("L", "RGBA", "P", "CMYK", "1"):
        assert preprocessing.to_pixels(Image.new(mode, (20, 30))).shape == (16, 16, 3)
    assert preprocessing.to_pixels(np.zeros((16, 16), np.uint8)).shape == (16, 16, 3)
    with pytest.raises(InputError, match="float32 .* must be uint8"):
        preprocessing.to_pixels(np.zeros((16, 16, 3), np.float32))


def test_weights_that_are_not_there_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "resnet50-11ad3fa6.pth"
    with pytest.raises(InputError, match=f"download https://.*resnet50-11ad3fa6.pth to {place}, or add --online"):
        load_backbone(BackboneSpec("resnet50"), "cpu")
    with pytest.raises(InputError, match="--weights V3: .* it has IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"):
        load_backbone(BackboneSpec("resnet50", weights="V3"), "cpu")
    with pytest.raises(InputError, match="--weights my.pth: no such file"):
        load_backbone(BackboneSpec("resnet50", weights="my.pth"), "cpu")


def test_a_file_under_the_right_name_with_other_content_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True)
    torch.save({"a": torch.ones(1)}, place)
    with pytest.raises(InputError, match="squeezenet1_1"):
        load_backbone(BackboneSpec("squeezenet1_1"), "cpu")


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_papers_size(depth, millions):
    n_parameters = sum(p.numel() for p in CifarResNet(depth).parameters())
    assert n_parameters / 1e6 == pytest.approx(millions, abs=0.04)  # He et al. 2016, table 6


def test_cifar_resnet_from_a_published_style_file(cifar_resnet_weights):
    backbone = load_backbone(BackboneSpec("cifar_resnet20", weights=str(cifar_resnet_weights)), "cpu")
    assert (backbone.layer, backbone.feature_dim, backbone.class_names[0]) == ("linear", 64, "airplane")
    with pytest.raises(InputError, match="these weights are not cifar_resnet56's"):
        load_backbone(BackboneSpec("cifar_resnet56", weights=str(cifar_resnet_weights)), "cpu")
    with pytest.raises(UsageError, match="needs --weights FILE"):
        load_backbone(BackboneSpec("cifar_resnet56"), "cpu")


@pytest.mark.skipif(not SHARED.exists(), reason="the published CIFAR weights and images are not on this machine")
def test_the_published_cifar_resnet20_is_right():
    weights = SHARED / "weights" / "cifar10_resnet20-12fca82f.th"
    backbone = load_backbone(BackboneSpec("cifar_resnet20", weights=str(weights)), "cpu")
    data = np.load(SHARED / "vision" / "cifar10_lossless.npz")
    with torch.no_grad():
        _, logits = backbone.features(torch.from_numpy(data["x_test"][:300]), logits=True)
    assert (logits.argmax(1).numpy() == data["y_test"][:300]).mean() > 0.88  # 91.5 % on 1,000
