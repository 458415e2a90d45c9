"""Finding the decision layer, reading any other, and pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.backbones.layers import FeatureTap, dense_head, find_head, pool
from debugnet.errors import InputError, UsageError


class Wrapped(nn.Module):
    """A body, a Linear, and something behind it."""

    def __init__(self, behind: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.classifier = nn.Linear(8, 3)
        self.behind = behind or nn.Identity()

    def forward(self, x):
        return self.behind(self.classifier(self.body(x)))


def n_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def test_the_feature_is_the_input_of_the_last_linear():
    network, x = Wrapped(), torch.randn(4, 5)
    tap = find_head(network, lambda: network(x))
    features, logits = tap(lambda: network(x))
    assert (tap.layer, tap.at) == ("classifier", "input")
    assert torch.equal(features, network.body(x))
    head = dense_head(network.classifier)
    np.testing.assert_allclose(
        features.double().detach().numpy() @ head.weight.T + head.bias, logits.detach(), atol=1e-5
    )
    assert n_hooks(network) == 0


def test_a_later_linear_of_another_size_is_not_the_head():
    class Auxiliary(Wrapped):
        def __init__(self):
            super().__init__()
            self.side = nn.Linear(3, 2)

        def forward(self, x):
            logits = super().forward(x)
            self.side(logits)
            return logits

    network, x = Auxiliary(), torch.randn(2, 5)
    assert find_head(network, lambda: network(x)).layer == "classifier"


@pytest.mark.parametrize(
    "behind", [nn.Softmax(dim=1), nn.Sigmoid(), nn.LayerNorm(3)], ids=["softmax", "sigmoid", "norm"]
)
def test_something_behind_the_linear_is_refused_with_the_numbers(behind):
    network, x = Wrapped(behind), torch.randn(4, 5)
    with pytest.raises(InputError, match=r"'classifier': W z \+ b differs from the logits by .*--layer"):
        find_head(network, lambda: network(x))
    assert n_hooks(network) == 0


def test_networks_without_a_linear_head_are_refused():
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="no Linear layer gives the network's 4 outputs"):
        find_head(conv, lambda: conv(torch.randn(2, 3, 8, 8)))
    maps = nn.Conv2d(3, 4, 3)
    with pytest.raises(InputError, match=r"output is \(2, 4, 6, 6\), not \(samples, classes\)"):
        find_head(maps, lambda: maps(torch.randn(2, 3, 8, 8)))


def test_hooks_go_even_when_the_network_fails():
    network = Wrapped()
    tap = FeatureTap(network, "classifier", "input")
    with pytest.raises(RuntimeError):
        tap(lambda: network(torch.randn(2, 4)))
    assert n_hooks(network) == 0


def test_a_layer_that_does_not_run_is_named():
    network = Wrapped()
    network.idle = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="layer 'idle' took no part"):
        FeatureTap(network, "idle", "output")(lambda: network(torch.randn(2, 5)))


def test_pooling_of_maps():
    value = torch.randn(2, 3, 4, 5)
    assert torch.allclose(pool(value, None, None, "l"), value.flatten(2).mean(2))
    assert torch.allclose(pool(value, "max", None, "l"), value.flatten(2).max(2).values)
    assert torch.equal(pool(value, "flatten", None, "l"), value.reshape(2, 60))


@pytest.mark.parametrize("on_left", [False, True])
def test_pooling_of_tokens_ignores_padding(on_left):
    value, lengths = torch.randn(3, 6, 4), [6, 1, 4]
    mask = torch.zeros(3, 6, dtype=torch.long)
    for row, n in zip(mask, lengths, strict=True):
        row[slice(6 - n, 6) if on_left else slice(0, n)] = 1
    for i, n in enumerate(lengths):
        tokens = value[i, 6 - n :] if on_left else value[i, :n]
        assert torch.allclose(pool(value, "mean", mask, "l")[i], tokens.mean(0), atol=1e-6)
        assert torch.equal(pool(value, "cls", mask, "l")[i], tokens[0])
        assert torch.equal(pool(value, "last", mask, "l")[i], tokens[-1])


@pytest.mark.parametrize(
    ("shape", "pooling", "message"),
    [
        ((2, 3), "avg", r"one vector per sample \(2, 3\): drop --pool avg"),
        ((2, 3, 4), None, r"\(2, 3, 4\): choose --pool cls, mean"),
        ((2, 3, 4, 4), "cls", r"choose --pool avg, max or flatten, not cls"),
        ((2, 3, 4, 4, 4), None, "cannot be pooled"),
    ],
)
def test_pooling_that_cannot_work_says_what_can(shape, pooling, message):
    with pytest.raises(UsageError, match=message):
        pool(torch.zeros(shape), pooling, None, "l")
