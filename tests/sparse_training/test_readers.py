"""Finding and switching the weights that read an input."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debugnet.errors import UsageError
from debugnet.sparse_training.networks import make_mlp
from debugnet.sparse_training.readers import InputReader

CASES = {
    "linear": (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (6,), "auto", None, 6),
    "flatten": (nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), (3, 4), "auto", None, 12),
    "channels": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
        (3, 4, 4),
        "auto",
        None,
        3,
    ),
    "gate": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3)), (3, 4, 4), "gate", None, 48),
    "groups": (nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (6,), "auto", [0, 1, 0, 2, 2, 2], 3),
}


@pytest.mark.parametrize("name", CASES)
def test_zeroing_a_unit_removes_exactly_its_inputs(name):
    network, shape, mode, groups, n_units = CASES[name]
    x = torch.randn(4, *shape)
    reader = InputReader(network, x, mode=mode, groups=None if groups is None else torch.tensor(groups))
    assert reader.n_units == n_units and int(reader.unit_sizes.sum()) == x[0].numel()
    before = [w.detach().clone() for w in reader.parameters]
    rows = reader.rows([w.detach() for w in reader.parameters])
    reader.assign(rows)
    for weight, value in zip(reader.parameters, before, strict=True):
        torch.testing.assert_close(weight.detach(), value)
    rows[1] = 0
    reader.assign(rows)
    dropped = reader.element_mask(torch.arange(n_units) == 1)
    x.requires_grad_()
    gradient = torch.autograd.grad(reader.network(x).square().sum(), x)[0].flatten(1)
    assert not gradient[:, dropped].any() and (gradient[:, ~dropped] != 0).any(dim=0).all()
    reader.assign(reader.rows(before))


@pytest.mark.parametrize("name", CASES)
def test_skip_weights_round_trip(name):
    network, shape, mode, groups, n_units = CASES[name]
    x = torch.randn(2, *shape)
    reader = InputReader(network, x, mode=mode, groups=None if groups is None else torch.tensor(groups))
    theta = torch.randn(3, x[0].numel())
    rows = reader.skip_rows(theta)
    torch.testing.assert_close(reader.skip_from_rows(rows, 3), theta)
    rows[0] = 0
    assert not reader.skip_from_rows(rows, 3)[:, reader.element_mask(torch.arange(n_units) == 0)].any()


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return self.first(x) + x


def test_what_cannot_be_gated_is_refused():
    x = torch.randn(3, 4)
    with pytest.raises(UsageError, match="reads its input elsewhere"):
        InputReader(Skips(), x)
    with pytest.raises(UsageError, match="cannot be switched off"):
        InputReader(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), x)
    with pytest.raises(UsageError, match="group 1 has no feature"):
        InputReader(nn.Linear(4, 2), x, groups=torch.tensor([0, 0, 2, 2]))
    with pytest.raises(UsageError, match="one id"):
        InputReader(nn.Linear(4, 2), x, groups=torch.tensor([0, 1]))


def test_images_stored_channels_last_are_read_by_the_first_linear_layer():
    """Flatten copies them: the layer behind it reads the input all the same."""
    x = torch.randn(5, 2, 3, 4).permute(0, 3, 1, 2)
    network = make_mlp(24, 3, (6,))
    reader = InputReader(network, x)
    assert reader.n_units == 24 and reader.mode == "linear"
    rows = reader.rows(reader.parameters).detach().clone()
    rows[7] = 0.0  # channel 1, row 0, column 1 in (4, 2, 3)
    reader.assign(rows)
    changed = x.clone()
    changed[:, 1, 0, 1] += 10.0
    torch.testing.assert_close(network(changed), network(x), rtol=0, atol=1e-6)
