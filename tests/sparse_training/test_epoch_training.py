"""Optimizers by name, and training that can be killed at any moment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debugnet.errors import InputError, UsageError
from debugnet.sparse_training import epoch_training
from debugnet.sparse_training.epoch_training import EpochTraining
from debugnet.sparse_training.losses import Diverged, FamilyLoss
from debugnet.sparse_training.optimizers import decay_is_coupled, make_optimizer, optimizer_names
from debugnet.sparse_training.proximal_training import Batches

torch.set_num_threads(1)
COUPLED = {"adadelta", "adagrad", "adam", "adamax", "asgd", "nadam", "radam", "rmsprop", "sgd"}


def training(name: str, file=None, lr: float = 0.01) -> EpochTraining:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=generator)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))
    optimizer = make_optimizer(name, list(network.parameters()), lr)
    batches = Batches(X, (X[:, 0] > 0).long(), 16)
    return EpochTraining(network, optimizer, batches, FamilyLoss("multinomial"), file=file)


@pytest.mark.parametrize("name", optimizer_names())
def test_a_killed_phase_ends_with_the_same_bytes(name, tmp_path, monkeypatch):
    """Killed in the third epoch: network, moments, dropout's random numbers and step sizes go on as they were."""
    monkeypatch.setattr(epoch_training, "CHECKPOINT_SECONDS", 0.0)
    whole = training(name)
    whole.run(4)
    steps = 0

    def kill(_: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(name, tmp_path / "state.safetensors").run(4, kill)
    torch.manual_seed(5)
    resumed = training(name, tmp_path / "state.safetensors")
    resumed.run(4, lambda _: None)
    assert resumed.epoch == 4
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_a_finished_phase_is_not_trained_again_and_a_damaged_state_is_named(tmp_path):
    first = training("adam", tmp_path / "state.safetensors")
    first.run(2)
    again = training("adam", tmp_path / "state.safetensors")
    again.run(2, lambda _: pytest.fail("trained again"))
    assert torch.equal(first.network[0].weight, again.network[0].weight)
    (tmp_path / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        training("adam", tmp_path / "state.safetensors").run(2)


def test_divergence_is_rolled_back_at_half_the_step():
    run = training("sgd", lr=1e12)
    with pytest.raises(Diverged):
        run.run(3)
    assert run.failures == epoch_training.MAX_FAILURES
    healthy = training("sgd", lr=0.1)
    broken = iter([True])

    def once(outputs, y):
        return FamilyLoss("multinomial")(outputs, y) * (float("nan") if next(broken, False) else 1.0)

    healthy.loss = once
    healthy.run(2)
    assert healthy.failures == 1 and torch.isfinite(healthy.network[0].weight).all()


@pytest.mark.parametrize("name", optimizer_names())
def test_which_optimizers_add_their_decay_to_the_gradient(name):
    optimizer = make_optimizer(name, list(nn.Linear(2, 2).parameters()), 0.1)
    assert decay_is_coupled(optimizer) == (name in COUPLED)
    assert all(group.get("weight_decay", 0) == 0 for group in optimizer.param_groups)


def test_optimizers_that_cannot_be():
    assert not decay_is_coupled(torch.optim.NAdam(nn.Linear(2, 2).parameters(), decoupled_weight_decay=True))
    for name in ("lbfgs", "sparseadam", "nothing"):
        with pytest.raises(UsageError, match=f"--optimizer {name}: torch has .*adam, adamax"):
            make_optimizer(name, list(nn.Linear(2, 2).parameters()), 0.1)
