"""Paths: the linear case against a convex oracle, planted inputs, every size, certificates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from debugnet.errors import InputError, UsageError
from debugnet.sparse_training.baselines import random_order, top_mask
from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import FamilyLoss
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.penalties import HiddenGroupPenalty, InputGroupPenalty
from debugnet.sparse_training.proximal_training import (
    Batches,
    ProximalTrainer,
    evaluate,
    full_gradient,
    snapshot,
)
from debugnet.sparse_training.readers import InputReader
from debugnet.sparse_training.retraining import relax, retrain
from debugnet.sparse_training.subsets import PathOptions, Subset
from debugnet.sparse_training.unit_adam import UnitAdam
from debugnet.sparse_training.unit_checkpoint import load_fitter, save_fitter
from debugnet.sparse_training.unit_path import UnitPathFitter

torch.set_num_threads(1)


def adam(lr: float):
    return lambda parameters: make_optimizer("adam", parameters, lr)


def xor_data(n: int, d: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Class = sign(x0 x1): no linear method can see the two features that matter."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=generator)
    return X, (X[:, 0] * X[:, 1] > 0).long()


def lassonet_trainer(d: int = 8, seed: int = 0, hierarchy: float = 10.0, lr: float = 5e-3) -> ProximalTrainer:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(d, 32), nn.ReLU(), nn.Linear(32, 2))
    model = LassoNet(network, torch.randn(2, d))
    return ProximalTrainer(model, [model.penalty(hierarchy)], FamilyLoss("multinomial"), optimizer=adam(lr), lr=lr)


@pytest.fixture(scope="module")
def xor_path():
    X, y = xor_data(700, 8, 0)
    train, validation = Batches(X[:500], y[:500], 64), Batches(X[500:], y[500:], 300)
    trainer = lassonet_trainer()
    options = PathOptions(sizes=(2, 4, 8), dense_epochs=20, ratio=1.5, epochs_per_lambda=1)
    fitter = UnitPathFitter(trainer, train, validation, "multinomial", options)
    stages = list(fitter)
    return fitter.finish(), stages, train, validation


def test_planted_interaction_is_found(xor_path):
    path, _, _, _ = xor_path
    assert set(np.flatnonzero(path.subsets[2].mask)) == {0, 1}
    assert set(np.argsort(-np.where(np.isinf(path.death), 1e9, path.death))[:2]) == {0, 1}
    assert path.subsets[2].validation["accuracy"] > 0.85


def test_every_size_is_there_and_lambda_rises(xor_path):
    path, stages, _, _ = xor_path
    assert set(path.subsets) == set(range(9))
    assert path.subsets[8].mask.all() and path.subsets[8].state and path.subsets[8].max_violation == -1
    assert all(subset.mask.sum() == size for size, subset in path.subsets.items())
    lams = [stage.lam for stage in stages]
    assert lams == sorted(lams) and stages[-1].n_units == 0


def test_dropped_features_are_certified_at_the_path_point(xor_path):
    """The optimality condition of zero, on all rows, holds where the path itself stood."""
    path, _, _, _ = xor_path
    subset = path.subsets[2]
    assert subset.settled and subset.max_violation <= 0 and subset.violators == 0
    assert np.isnan(path.subsets[3].max_violation)  # not asked for: not claimed


def test_kept_networks_use_no_unit_outside_their_mask():
    """Many noise features fall in one stage, so that most sizes are only passed: lambda rises in great leaps."""
    X, y = xor_data(300, 20, 0)
    train, validation = Batches(X[:200], y[:200], 100), Batches(X[200:], y[200:], 300)
    trainer = lassonet_trainer(20)
    options = PathOptions(sizes=tuple(range(1, 20)), dense_epochs=5, ratio=3.0, epochs_per_lambda=1, max_drop=1.0)
    fitter = UnitPathFitter(trainer, train, validation, "multinomial", options)
    list(fitter)
    path = fitter.finish()
    assert any(not path.subsets[size].settled for size in options.sizes)
    for size in options.sizes:
        subset = path.subsets[size]
        trainer.model.load_state_dict(subset.state)
        assert not (trainer.alive().numpy() & ~subset.mask).any()
        if not subset.settled:
            assert subset.validation["loss"] > 0 and np.isfinite(subset.polished_violation)


def test_refit_on_the_mask_beats_random_masks(xor_path):
    path, _, train, validation = xor_path
    kept, metrics = retrain(
        lambda: lassonet_trainer(seed=1), path.subsets[2].mask, train, validation, "multinomial", max_epochs=15
    )
    assert metrics["accuracy"] > 0.85
    assert not kept.penalties[0].current()[~torch.from_numpy(path.subsets[2].mask)].any()
    wrong = top_mask(next(o for o in (random_order(8, seed) for seed in range(20)) if o[:2].min() > 1), 2)
    _, control = retrain(lambda: lassonet_trainer(seed=1), wrong, train, validation, "multinomial", max_epochs=15)
    assert control["accuracy"] < 0.65


def test_later_layers_cannot_grow_to_evade_the_penalty(xor_path):
    """First layer down, second up leaves a ReLU network as it is: the penalty could be had for nothing."""
    _, _, train, _ = xor_path
    norms = {}
    for held in (False, True):
        trainer = lassonet_trainer()
        matrix = trainer.model.network[2].weight.detach()
        start = float(matrix.norm())
        if held:
            trainer.hold_norms()
        for _ in range(6):
            trainer.epoch(train, 0.05)
        norms[held] = float(matrix.norm()) / start
    assert norms[True] <= 1 + 1e-5 < 1.02 < norms[False]


def test_relaxing_ends_where_the_linear_layer_does():
    """A network that the penalty has shrunk to nearly nothing, on 500 rows (5 steps an epoch), made linear again."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    X = torch.randn(700, 8, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] + X[:, 1] - X[:, 2] + torch.randn(700, generator=torch.Generator().manual_seed(1)) > 0).long()
    train, validation = Batches(X[:500], y[:500], 100), Batches(X[500:], y[500:], 200)
    trainer = lassonet_trainer(lr=1e-3)
    mask = np.arange(8) < 3
    for penalty in trainer.penalties:
        penalty.assign(penalty.current() * 1e-3)
    steps = [stepper.lr for stepper in trainer.steppers]
    relax(trainer, Subset(3, 1.0, mask, state=snapshot(trainer.model)), train, validation, "multinomial")
    loss = evaluate(trainer.model, train, trainer.loss, "multinomial")["loss"]
    linear = LogisticRegression(C=1e6).fit(X[:500, :3].numpy(), y[:500].numpy())
    exact = log_loss(y[:500].numpy(), linear.predict_proba(X[:500, :3].numpy()))
    assert loss < 1.02 * exact < 0.9 * np.log(2)
    assert set(np.flatnonzero(trainer.alive())) == {0, 1, 2}
    assert [stepper.lr for stepper in trainer.steppers] == pytest.approx(steps)


def test_a_trainer_without_penalties_trains_an_ordinary_network():
    X, y = xor_data(200, 4, 0)
    network = nn.Linear(4, 2)
    trainer = ProximalTrainer(network, [], FamilyLoss("multinomial"), optimizer=adam(5e-2))
    losses = [trainer.epoch(Batches(X, (X[:, 0] > 0).long(), 50), 0.0) for _ in range(10)]
    assert losses[-1] < 0.5 * losses[0] and not len(trainer.living)


def lasso_problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(200, 8))
    y = X @ np.array([2.0, -1, 0.5, 0, 0, 0, 0, 0]) + 0.5 * rng.normal(size=200)
    X -= X.mean(axis=0)
    return X, y - y.mean()


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.999)])
def test_lambda_is_the_one_that_is_minimized(betas):
    """M = 0 leaves a lasso on theta; its solution must be scikit-learn's, whatever the momentum."""
    from sklearn.linear_model import Lasso

    X, y = lasso_problem()
    lam = 0.15
    exact = Lasso(alpha=lam, fit_intercept=False, tol=1e-10).fit(X, y).coef_  # 1/(2n) ||.||^2 + alpha ||.||_1
    model = LassoNet(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1)), torch.zeros(2, 8)).double()
    with torch.no_grad():
        model.network[2].weight.zero_()
        model.network[2].bias.zero_()
    for parameter in model.network[2].parameters():
        parameter.requires_grad_(False)
    trainer = ProximalTrainer(model, [model.penalty(0.0)], FamilyLoss("gaussian"), optimizer=adam(5e-3), lr=0.02)
    trainer.penalties[0].unit_weight = trainer.penalties[0].unit_weight.double()
    trainer.steppers = [UnitAdam(0.02, betas)]
    x, t = torch.tensor(X), torch.tensor(y)
    for epoch in range(800):
        if epoch in (400, 600):
            trainer.scale_lr(0.1)
        trainer.step(x, t, lam)
    np.testing.assert_allclose(model.skip.weight.detach().numpy()[0], exact, atol=2e-3)
    assert set(np.flatnonzero(exact)) == set(torch.nonzero(model.skip.weight.detach()[0]).flatten().tolist())


def test_input_group_lasso_finds_the_planted_interaction():
    X, y = xor_data(700, 8, 3)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
    penalty = InputGroupPenalty(InputReader(network, X[:2]), l1_share=0.1)
    trainer = ProximalTrainer(network, [penalty], FamilyLoss("multinomial"), optimizer=adam(5e-3), lr=5e-3)
    fitter = UnitPathFitter(
        trainer, Batches(X[:500], y[:500], 64), Batches(X[500:], y[500:]), "multinomial",
        PathOptions(dense_epochs=20, ratio=1.5, epochs_per_lambda=1, stop_at=2),
    )  # fmt: skip
    list(fitter)
    assert set(np.flatnonzero(fitter.finish().subsets[2].mask)) == {0, 1}


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_pull_is_the_lambda_at_which_zero_is_optimal(share):
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    penalty = InputGroupPenalty(InputReader(network, torch.randn(2, 5)), l1_share=share)
    gradient = torch.randn(5, 7)
    pull = penalty.pull(gradient)
    step = torch.ones(5)
    for lam_factor, alive in ((0.999, True), (1.001, False)):
        for i in range(5):
            rows = penalty.prox(-gradient, step, float(pull[i]) * lam_factor)
            assert bool(rows[i].any()) == alive


def test_hidden_units_vanish_with_their_bias_and_normalization():
    layer, norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
    penalty = HiddenGroupPenalty(layer, norm)
    rows = penalty.current()
    assert rows.shape == (6, 4 + 1 + 1 + 1)
    penalty.assign(rows * (torch.arange(6) != 2)[:, None])
    out = norm(layer(torch.randn(8, 4)))
    assert not out[:, 2].any() and out[:, 1].any()
    with pytest.raises(UsageError, match="l1 share"):
        HiddenGroupPenalty(layer, l1_share=1.5)


def test_a_killed_path_goes_on_to_the_same_end(tmp_path):
    X, y = xor_data(200, 5, 1)
    options = PathOptions(sizes=(2,), dense_epochs=2, ratio=2.0, epochs_per_lambda=1)

    def fitter() -> UnitPathFitter:
        return UnitPathFitter(
            lassonet_trainer(5, 2), Batches(X[:150], y[:150], 50), Batches(X[150:], y[150:]), "multinomial", options
        )

    whole = fitter()
    list(whole)
    killed = fitter()
    for i, _ in enumerate(killed):
        if i == 4:
            break
    save_fitter(killed, tmp_path / "path.safetensors")
    resumed = fitter()
    torch.manual_seed(99)
    assert load_fitter(resumed, tmp_path / "path.safetensors")
    assert 5 == len(resumed.path.stages) < len(whole.path.stages)
    list(resumed)
    assert resumed.path.stages == whole.path.stages
    np.testing.assert_array_equal(resumed.path.death, whole.path.death)
    a, b = resumed.finish().subsets[2], whole.finish().subsets[2]
    assert a.validation == b.validation and all(torch.equal(a.state[k], b.state[k]) for k in a.state)
    (tmp_path / "path.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        load_fitter(fitter(), tmp_path / "path.safetensors")
    assert not load_fitter(fitter(), tmp_path / "nothing")


def test_divergence_is_rolled_back_and_ends_clearly():
    X, y = xor_data(100, 4, 0)

    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.calls = 0

        def forward(self, x):
            self.calls += self.training
            return self.layer(x) * (float("nan") if self.calls > 60 else 1.0)

    network = Exploding()
    trainer = ProximalTrainer(
        network, [InputGroupPenalty(InputReader(network, X[:2]))], FamilyLoss("multinomial"), optimizer=adam(5e-3)
    )
    fitter = UnitPathFitter(trainer, Batches(X, y, 50), None, "multinomial", PathOptions(dense_epochs=3))
    stages = list(fitter)
    assert fitter.finish().status == "diverged"
    assert stages and torch.isfinite(network.layer.weight).all()


def test_losses_match_the_decision_layer_conventions():
    f = torch.randn(6, 3)
    y = torch.randint(0, 2, (6, 3))
    expected = nn.functional.binary_cross_entropy_with_logits(f, y.float(), reduction="none").sum(1).mean()
    torch.testing.assert_close(FamilyLoss("binomial")(f, y), expected)
    t = torch.randn(6, 3)
    torch.testing.assert_close(FamilyLoss("gaussian")(f, t), 0.5 * (f - t).square().sum(1).mean())


def test_metrics_and_gradients_do_not_depend_on_batching():
    X, y = xor_data(70, 5, 1)
    network = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    penalty = InputGroupPenalty(InputReader(network, X[:2]))
    loss = FamilyLoss("multinomial")
    (whole,) = full_gradient(network, [penalty], Batches(X, y, 5000), loss)
    (small,) = full_gradient(network, [penalty], Batches(X.numpy(), y, 16), loss)
    torch.testing.assert_close(whole, small)
    expected = float(loss(network(X), y).detach())
    assert evaluate(network, Batches(X, y, 7), loss, "multinomial")["loss"] == pytest.approx(expected)
