"""Inputs that tell the same: planted groups of twins, and what a path with ``drop_share`` keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.sparse_training.lassonet import LassoNet
from debugnet.sparse_training.losses import FamilyLoss
from debugnet.sparse_training.networks import make_mlp
from debugnet.sparse_training.optimizers import make_optimizer
from debugnet.sparse_training.proximal_training import Batches, ProximalTrainer
from debugnet.sparse_training.subsets import PathOptions
from debugnet.sparse_training.unit_checkpoint import load_fitter, save_fitter
from debugnet.sparse_training.unit_path import UnitPathFitter

torch.set_num_threads(1)
GROUPS, TWINS = 8, 5


def twins(n=700, seed=0):
    """Five features (correlation 0.95) for each of eight signals; the first two multiply, the next two add up."""
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(n, GROUPS))
    X = np.repeat(signals, TWINS, axis=1) * 0.95**0.5 + 0.05**0.5 * rng.normal(size=(n, GROUPS * TWINS))
    y = signals[:, 0] * signals[:, 1] + 0.7 * signals[:, 2] + 0.5 * signals[:, 3] > 0
    return torch.from_numpy(X.astype(np.float32)), torch.from_numpy(y.astype(np.int64))


def make_fitter(drop_share, sizes=(6, 20)):
    X, y = twins()
    torch.manual_seed(0)
    model = LassoNet(make_mlp(X.shape[1], 2, (30,)), X[:2])
    trainer = ProximalTrainer(
        model, [model.penalty()], FamilyLoss("multinomial"),
        optimizer=lambda p: make_optimizer("adam", p, 3e-3), lr=3e-3,
    )  # fmt: skip
    options = PathOptions(sizes=sizes, ratio=1.2, drop_share=drop_share)
    return UnitPathFitter(
        trainer, Batches(X[:500], y[:500], 64), Batches(X[500:], y[500:], 200), "multinomial", options
    )


def groups_kept(subset):
    return set(np.flatnonzero(subset.mask) // TWINS)


@pytest.fixture(scope="module")
def thinned():
    fitter = make_fitter(0.1)
    list(fitter)
    return fitter, fitter.finish()


def test_signals_are_thinned_out_before_they_are_lost(thinned):
    _, path = thinned
    plain = make_fitter(None)
    list(plain)
    assert {0, 1, 2, 3} <= groups_kept(path.subsets[6])
    assert not {0, 1, 2, 3} <= groups_kept(plain.finish().subsets[6])  # whole groups leave as lambda rises


def test_lambda_stays_and_the_sizes_asked_for_are_met_by_stages(thinned):
    fitter, path = thinned
    counts = np.array([stage.n_units for stage in path.stages])
    falling = np.array([stage.lam for stage in path.stages])[counts < GROUPS * TWINS]
    assert len(set(falling)) == 1 and counts[-1] == 0 and fitter.trainer.keep is None
    assert set(path.subsets) == set(range(GROUPS * TWINS + 1))
    assert path.subsets[6].settled and path.subsets[20].settled
    assert path.subsets[6].network_lam == falling[0]
    assert np.all(np.isfinite(path.importance)) and path.importance.min() >= 0
    assert (path.importance[path.subsets[6].mask] > path.importance[~path.subsets[6].mask].max()).all()


def test_a_killed_path_goes_on_to_the_same_end(thinned, tmp_path):
    fitter = make_fitter(0.1)
    for stage in fitter:
        if stage.n_units < 30:
            break
    save_fitter(fitter, tmp_path / "path.safetensors")
    resumed = make_fitter(0.1)
    assert load_fitter(resumed, tmp_path / "path.safetensors")
    list(resumed)
    assert [s.n_units for s in resumed.path.stages] == [s.n_units for s in thinned[1].stages]
    np.testing.assert_array_equal(resumed.path.subsets[6].mask, thinned[1].subsets[6].mask)
