"""Steps compiled as a whole against autograd, torch's Adam and the proximal step one after the other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debugnet.sparse_training import proximal_training
from debugnet.sparse_training.compiled_steps import fits
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import Diverged, FamilyLoss
from debugnet.sparse_training.networks import make_mlp
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.proximal_training import Batches, ProximalTrainer

torch.set_num_threads(1)
OUTPUTS = {"multinomial": 3, "binomial": 2, "gaussian": 1}


def make_trainer(family="multinomial", hidden=(7, 5), optimizer="adam", network=None, **options):
    torch.manual_seed(0)
    network = network or make_mlp(6, OUTPUTS[family], hidden)
    model = LassoNet(network, torch.zeros(2, 2, 3), groups=options.pop("groups", None))
    return ProximalTrainer(
        model, [model.penalty(2.0)], FamilyLoss(family),
        optimizer=lambda p: make_optimizer(optimizer, p, 1e-2), lr=1e-2, **options,
    )  # fmt: skip


def make_batches(family):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(50, 2, 3, generator=generator)
    targets = {
        "multinomial": torch.randint(3, (50,), generator=generator),
        "binomial": torch.randint(2, (50, 2), generator=generator),
        "gaussian": X[:, 0, 0] + X[:, 1, 1],
    }
    return Batches(X, targets[family], 16, seed=3)


def train(family, **options):
    """Dense, then under caps and a penalty, then on some units alone: everything a step can be asked for."""
    trainer, batches = make_trainer(family, **options), make_batches(family)
    losses = [trainer.epoch(batches, 0.0)]
    trainer.hold_norms()
    losses += [trainer.epoch(batches, 0.05) for _ in range(4)]
    pull, living = trainer.pull(), trainer.living
    trainer.keep = torch.tensor([True, False, True, True, False, True])
    trainer.scale_lr(0.5)
    losses.append(trainer.epoch(batches, 0.01))
    return trainer, losses, pull, living


@pytest.mark.parametrize(("family", "hidden"), [("multinomial", (7, 5)), ("binomial", (5,)), ("gaussian", (5,))])
def test_compiled_steps_are_those_of_autograd(monkeypatch, family, hidden):
    assert fits(make_trainer(family, hidden), 16)
    found = train(family, hidden=hidden, prox_every=2)
    monkeypatch.setattr(proximal_training, "fits", lambda *_: False)
    expected = train(family, hidden=hidden, prox_every=2)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-6)
    assert torch.equal(found[3], expected[3]) and torch.equal(found[0].living, expected[0].living)
    assert not found[0].living[1] and found[0].living.any()
    for mine, other in zip(found[0].model.parameters(), expected[0].model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    states = [trainer.optimizer.state_dict()["state"] for trainer in (found[0], expected[0])]
    assert states[0].keys() == states[1].keys()
    for mine, other in ((states[0][i], states[1][i]) for i in states[0]):
        assert int(mine["step"]) == int(other["step"]) == 24
        torch.testing.assert_close(mine["exp_avg_sq"], other["exp_avg_sq"], rtol=1e-4, atol=1e-9)
    assert found[0].steppers[0].count == expected[0].steppers[0].count == 24


def test_a_step_that_diverges_changes_nothing():
    trainer, batches = make_trainer(), make_batches("multinomial")
    trainer.epoch(batches, 0.0)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    batches.X[:] = torch.nan
    with pytest.raises(Diverged, match="nan"):
        trainer.epoch(batches, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


def test_everything_else_is_left_to_autograd():
    assert not fits(make_trainer(), 10**6)
    assert not fits(make_trainer(optimizer="sgd"), 16)
    assert not fits(make_trainer(groups=torch.tensor([0, 0, 1, 1, 2, 2])), 16)
    assert not fits(make_trainer(hidden=()), 16)
    assert not fits(make_trainer(amp=True), 16)
    for between in (nn.Tanh(), nn.BatchNorm1d(5)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), between, nn.Linear(5, 3))
        assert not fits(make_trainer(network=network), 16)
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3))
    assert not fits(make_trainer(network=network), 16)
