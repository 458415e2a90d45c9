"""The CIFAR-10 residual networks of He et al. 2016, section 4.2: 6n+2 layers, 16-32-64 channels.

Shortcuts are the paper's option A (subsampling and zero padding, no parameters).  Entry names follow
the widely used checkpoints of github.com/akamaster/pytorch_resnet_cifar10, which load strictly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debugnet.backbones.preprocessing import ImagePreprocessing
from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import BackboneSpec
from debugnet.backbones.weights_files import load_into, read_state_dict
from debugnet.errors import UsageError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class _PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the new channels, half on either side."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = in_channels == channels and stride == 1
        self.shortcut = nn.Identity() if same else _PaddedShortcut((channels - in_channels) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A residual network for 32 x 32 images.

    Parameters
    ----------
    depth : int
        6n + 2: 20, 32, 44, 56, 110 …
    num_classes : int
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth {depth} is not 6n + 2")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    @staticmethod
    def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = _BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(_BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map normalized images (n, 3, 32, 32) to logits (n, K)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.linear(out.mean(dim=(2, 3)))


def load(spec: BackboneSpec, *, online: bool = False) -> NetworkSource:
    """Build a CIFAR ResNet with the weights of a file."""
    path = spec.weights_file
    if path is None:
        raise UsageError(f"--backbone {spec.name} needs --weights FILE: no weights come with it")
    state = read_state_dict(path)
    classifier = state.tensors.get("linear.weight")
    n_classes = 10 if classifier is None else len(classifier)
    with torch.random.fork_rng(devices=[]):  # the initial values are overwritten: leave the caller's stream alone
        network = CifarResNet(int(spec.name.removeprefix("cifar_resnet")), n_classes)
    load_into(network, state, spec.name)
    # Those checkpoints were trained with ImageNet's mean and deviation, not CIFAR's: with them, and with no others,
    # the first layer's outputs have the moments that its batch normalization recorded.
    preprocessing = ImagePreprocessing(32, 32)
    if state.normalization is not None:
        preprocessing = ImagePreprocessing(32, 32, *state.normalization)
    return NetworkSource(
        network,
        "image",
        class_names=CIFAR10_CLASSES if n_classes == 10 else None,
        preprocessing=preprocessing.at_size(spec.image_size),
    )
