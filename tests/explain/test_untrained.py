"""Untrained weights are found, trained ones are left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.explain.untrained import check_weights


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(
        BertConfig(
            vocab_size=150, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            pad_token_id=0,
        )
    )  # fmt: skip


@pytest.mark.parametrize("make", [lambda: CifarResNet(8, 10), _bert])
@pytest.mark.parametrize("seed", range(5))
def test_random_weights_are_found(make, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = check_weights(make())
    assert len(found.untrained) == found.n_matrices > 5
    assert len(found.flags) == 1 and "looks untrained" in found.flags[0]


def test_orthogonal_weights_are_no_trained_ones():
    network = nn.Linear(64, 64)
    nn.init.orthogonal_(network.weight)
    assert check_weights(network).flags


def test_a_trained_network_passes_and_its_one_new_layer_is_named():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 16))
        x = torch.randn(512, 32)
        y = torch.tanh(x @ torch.randn(32, 3)) @ torch.randn(3, 16)
        assert check_weights(network).flags
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        with torch.enable_grad():
            for _ in range(150):
                optimizer.zero_grad()
                nn.functional.mse_loss(network(x), y).backward()
                optimizer.step()
        assert check_weights(network) == check_weights(network)
        assert check_weights(network).untrained == () and not check_weights(network).flags
        nn.init.normal_(network[2].weight)
        found = check_weights(network)
    assert found.untrained == ("2.weight",) and not found.flags and "1 of 3" in found.describe()


def test_matrices_too_small_to_judge_give_no_verdict():
    found = check_weights(nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)))
    assert found.n_matrices == 0 and found.flags == ()
    constant = nn.Linear(32, 32)
    nn.init.zeros_(constant.weight)
    assert check_weights(constant).n_matrices == 0
