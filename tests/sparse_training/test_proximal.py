"""Exactness of the proximal operators against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from debugnet.sparse_training import proximal
from debugnet.sparse_training.proximal import hierarchical_prox, sparse_group_prox, survival
from debugnet.sparse_training.unit_adam import UnitAdam


def objective(b, w, v, u, t, s):
    return 0.5 * np.sum((v - b) ** 2) + 0.5 * np.sum((u - w) ** 2) + t * np.linalg.norm(b) + s * np.abs(w).sum()


def best_by_radius(v, u, t, s, M):
    """Oracle: for a fixed ||b|| = r the rest is separable; search r on ever finer grids."""
    norm = np.linalg.norm(v)
    soft = np.maximum(np.abs(u) - s, 0)

    def values(r):
        w = np.minimum(soft, M * r[:, None])
        return 0.5 * (norm - r) ** 2 + 0.5 * ((np.abs(u) - w) ** 2).sum(1) + t * r + s * w.sum(1)

    low, high = 0.0, norm + M * np.abs(u).sum() + 1
    for _ in range(12):
        grid = np.linspace(low, high, 401)
        i = int(np.argmin(values(grid)))
        low, high = grid[max(i - 1, 0)], grid[min(i + 1, 400)]
    return min(values(np.array([(low + high) / 2, 0.0])))


@pytest.mark.parametrize("M", [0.0, 0.3, 1.0, 10.0])
def test_hierarchical_prox_is_the_minimum(M):
    rng = np.random.default_rng(0)
    V, U = rng.normal(size=(40, 3)), rng.normal(size=(40, 5))
    V[:5] = 0
    U[5:10] = 0
    U[10:14] = np.round(U[10:14])
    t, s = rng.uniform(0, 3, 40), 0.2
    b, w = hierarchical_prox(torch.tensor(V), torch.tensor(U), torch.tensor(t), M, l1_threshold=s)
    for i in range(40):
        bi, wi = b[i].numpy(), w[i].numpy()
        assert np.abs(wi).max() <= M * np.linalg.norm(bi) + 1e-12
        assert objective(bi, wi, V[i], U[i], t[i], s) <= best_by_radius(V[i], U[i], t[i], s, M) + 1e-6


@pytest.mark.parametrize("M", [0.0, 0.5, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prox_by_rows_and_by_tensors_agree(dtype, M):
    """CPU and GPU have code of their own."""
    generator = torch.Generator().manual_seed(0)
    V, U = (torch.randn(200, q, generator=generator, dtype=dtype) for q in (3, 50))
    V[:3], U[3:6] = 0, 0
    direction = torch.nn.functional.normalize(torch.ones_like(V), dim=1)
    threshold, l1 = torch.logspace(-3, 2, 200, dtype=dtype).flip(0), torch.full((200,), 0.1, dtype=dtype)
    expected = proximal._prox_tensors(V, U, threshold, l1, M, direction)
    assert (expected[0] == 0).all(dim=1).any() and (expected[0] != 0).any()
    found = hierarchical_prox(V, U, threshold, M, l1_threshold=l1, direction=direction)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_by_units_is_its_formula(dtype):
    """What is compiled for the CPU, against the docstring's definition by tensors."""
    generator = torch.Generator().manual_seed(0)
    stepper, rows = UnitAdam(0.1, betas=(0.8, 0.95)), torch.randn(7, 11, generator=generator, dtype=dtype)
    expected, first, second = rows.clone(), torch.zeros_like(rows), torch.zeros(7, dtype=dtype)
    for count in range(1, 6):
        gradient = torch.randn(11, 7, generator=generator, dtype=dtype).T  # as a layer's weights are laid out
        gradient[3] = 0
        first = 0.8 * first + 0.2 * gradient
        second = 0.95 * second + 0.05 * gradient.square().mean(dim=1)
        step = 0.1 / ((second / (1 - 0.95**count)).sqrt() + 1e-8)
        expected = expected - step[:, None] * first / (1 - 0.8**count)
        rows, steps = stepper.step(rows, gradient)
        torch.testing.assert_close(rows, expected)
        torch.testing.assert_close(steps, step)


def test_no_hierarchy_is_the_group_lasso_and_survival_is_the_boundary():
    V, U = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 4, dtype=torch.float64)
    b, w = hierarchical_prox(V, U, 0.8, 0.0)
    torch.testing.assert_close(b, sparse_group_prox(V, torch.full((20,), 0.8, dtype=torch.float64)))
    assert not w.any()
    limit = survival(V, U, 2.0)
    alive = hierarchical_prox(V, U, limit * (1 - 1e-9), 2.0)[0].norm(dim=1) > 0
    dead = hierarchical_prox(V, U, limit * (1 + 1e-9), 2.0)[0].norm(dim=1) == 0
    assert alive.all() and dead.all()


def test_zero_skip_weights_survive_through_the_first_layer():
    b, w = hierarchical_prox(torch.zeros(1, 2), torch.tensor([[3.0, -2.0]]), 0.1, 10.0)
    assert b.norm() > 0 and w.abs().max() > 0
    b, _ = hierarchical_prox(
        torch.zeros(1, 2), torch.tensor([[3.0, -2.0]]), 0.1, 10.0, direction=torch.tensor([[0.6, 0.8]])
    )
    torch.testing.assert_close(b / b.norm(), torch.tensor([[0.6, 0.8]]))


def test_sparse_group_prox_is_the_minimum():
    rng = np.random.default_rng(1)
    for _ in range(10):
        v, t, s = rng.normal(size=4), rng.uniform(0, 2), rng.uniform(0, 0.5)
        w = sparse_group_prox(torch.tensor(v[None]), torch.tensor([t]), s)[0].numpy()

        def value(x, v=v, t=t, s=s):
            return 0.5 * np.sum((x - v) ** 2) + t * np.linalg.norm(x) + s * np.abs(x).sum()

        found = min(minimize(value, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun
                    for start in (v, w + 1e-3, np.zeros(4)))  # fmt: skip
        assert value(w) <= found + 1e-6


def test_zero_rows_give_no_nan():
    assert not sparse_group_prox(torch.zeros(3, 2), torch.ones(3)).isnan().any()
    assert not hierarchical_prox(torch.zeros(3, 2), torch.zeros(3, 2), 0.0, 10.0)[0].isnan().any()
