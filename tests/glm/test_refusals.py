"""Bad input gets one clear line that names the value, the place and the way out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debugnet.errors import DebugnetError, DeviceError, InputError, UsageError
from debugnet.glm import fit_path
from debugnet.registry import SOLVERS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 30)
Y[:3] = [0, 1, 2]


def spoiled(value, row=7, column=2):
    bad = X.copy()
    bad[row, column] = value
    return bad


CASES = {
    "nan": (dict(X=spoiled(np.nan)), InputError, ["nan", "row 7", "column 2"]),
    "inf": (dict(X=spoiled(-np.inf)), InputError, ["-inf", "row 7", "column 2"]),
    "nan among chosen rows": (dict(X=spoiled(np.nan), rows=np.arange(30) > 3), InputError, ["row 7", "column 2"]),
    "one class": (dict(y=np.zeros(30, int)), InputError, ["one class only (0)"]),
    "gap": (dict(y=np.where(Y == 1, 4, Y)), InputError, ["class 1, 3", "allow_empty_class"]),
    "negative label": (dict(y=np.where(Y == 1, -1, Y)), InputError, ["label -1 at row 1"]),
    "half label": (dict(y=Y + 0.5, family="multinomial"), InputError, ["label 0.5 at row 0"]),
    "strings": (dict(y=np.array(list("abc"))[Y]), InputError, ["np.unique"]),
    "y nan": (dict(y=np.where(Y == 1, np.nan, Y)), InputError, ["nan at row 1"]),
    "rows": (dict(y=Y[:20]), InputError, ["30 rows", "20"]),
    "too many classes": (dict(n_classes=2), InputError, ["label 2", "2 classes"]),
    "multi-label value": (dict(y=np.stack([Y, Y], 1), family="binomial"), InputError, ["holds 2", "need 0 and 1"]),
    "constant label": (dict(y=np.stack([Y > 0, Y >= 0], 1)), InputError, ["label 1", "allow_empty_class"]),
    "2-d multinomial": (dict(y=np.eye(3)[Y], family="multinomial"), InputError, ["family='binomial'"]),
    "constant target": (dict(y=np.ones(30)), InputError, ["one value only"]),
    "1-d features": (dict(X=X[:, 0]), InputError, ["(30,)", "n_features"]),
    "text features": (dict(X=np.full((30, 2), "a")), InputError, ["dtype"]),
    "bfloat16": (dict(X=torch.from_numpy(X).bfloat16()), InputError, ["bfloat16"]),
    "dead features": (dict(X=np.ones((30, 4))), InputError, ["4 of 4 features are constant"]),
    "l1_ratio 0": (dict(l1_ratio=0.0), UsageError, ["l1_ratio = 0.0", "(0, 1]"]),
    "l1_ratio 1.5": (dict(l1_ratio=1.5), UsageError, ["1.5"]),
    "tol": (dict(tol=0.0), UsageError, ["tol = 0.0"]),
    "negative weight": (dict(sample_weight=np.where(Y == 1, -1.0, 1.0)), InputError, ["-1.0 at row 1"]),
    "weight shape": (dict(sample_weight=np.ones(29)), InputError, ["(29,)"]),
    "zero weights": (dict(sample_weight=np.zeros(30)), InputError, ["zero"]),
    "weighted-out class": (dict(sample_weight=(Y != 1) * 1.0), InputError, ["class 1"]),
    "factor": (dict(penalty_factor=[1, 1, -2, 1]), InputError, ["-2.0 at feature 2"]),
    "factor shape": (dict(penalty_factor=[1, 1]), InputError, ["(2,)"]),
    "all excluded": (dict(penalty_factor=[np.inf] * 4), InputError, ["lambda_max"]),
    "offset": (dict(offset=np.zeros((30, 2))), InputError, ["(30, 2)", "(30, 3)"]),
    "no rows": (dict(rows=np.zeros(30, bool)), InputError, ["0 rows of 30"]),
    "unsorted lambdas": (dict(lambdas=[0.1, 0.2]), UsageError, ["lambdas[0] = 0.1", "0.2"]),
    "negative lambda": (dict(lambdas=[0.1, -0.2]), UsageError, ["-0.2"]),
    "no lambdas": (dict(n_lambdas=0), UsageError, ["n_lambdas = 0"]),
    "ratio": (dict(lambda_min_ratio=2.0), UsageError, ["lambda_min_ratio = 2"]),
    "option": (dict(alpha=0.5), UsageError, ["'alpha'", "l1_ratio"]),
    "family": (dict(family="poisson"), UsageError, ["poisson", "multinomial"]),
    "penalty": (dict(penalty="elasticnet"), UsageError, ["elastic_net"]),
    "solver": (dict(solver="fistaa"), UsageError, ["fista"]),
    "group weight": (dict(penalty="group_lasso", group_weight="k"), UsageError, ["'k'"]),
    "patience alone": (dict(patience=3), UsageError, ["validation"]),
    "val features": (dict(validation=(X[:, :3], Y)), InputError, ["val", "3 features"]),
    "val classes": (dict(validation=(X, Y + 1)), InputError, ["val", "label 3", "0..2"]),
    "val rows": (dict(validation=(X, Y[:3])), InputError, ["val", "30 rows", "3"]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_refused_in_one_line(name):
    changes, error, words = CASES[name]
    given = {"X": X, "y": Y, **changes}
    with pytest.raises(error) as caught:
        fit_path(**given)
    message = str(caught.value)
    assert isinstance(caught.value, DebugnetError)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_device():
    with pytest.raises(DeviceError, match="cuda"):
        fit_path(X, Y, device="cuda")


def test_a_pairing_that_cannot_work_names_the_alternatives(monkeypatch):
    monkeypatch.setattr(SOLVERS.load("saga"), "refusal", classmethod(lambda cls, problem: "it is too old"))
    with pytest.raises(UsageError, match=r"solver 'saga' cannot solve this: it is too old; use .*fista"):
        fit_path(X, Y, solver="saga")


def test_empty_classes_get_no_weight_when_allowed():
    gap = np.where(Y == 1, 4, Y)
    path = fit_path(X, gap, n_lambdas=5, lambda_min_ratio=0.1, allow_empty_class=True, validation=(X, gap))
    dense = fit_path(X, np.unique(gap, return_inverse=True)[1], n_lambdas=5, lambda_min_ratio=0.1)
    assert path.n_outputs == 5
    assert path.nnz_per_output[:, [1, 3]].sum() == 0
    np.testing.assert_allclose(path.weight(4)[[0, 2, 4]], dense.weight(4))
    W, b = path.raw(4)
    assert set((X @ W.T + b).argmax(1)) <= {0, 2, 4}
    assert path.metrics["val"]["accuracy"][4] == pytest.approx(dense.metrics["train"]["accuracy"][4])


def test_constant_labels_keep_their_value_when_allowed():
    labels = np.stack([Y > 0, Y >= 0, Y == 1, Y < 0], 1).astype(int)
    path = fit_path(X, labels, n_lambdas=3, lambda_min_ratio=0.3, allow_empty_class=True)
    W, b = path.raw(2)
    scores = X @ W.T + b
    assert (scores[:, 1] > 20).all() and (scores[:, 3] < -20).all()


def test_fewer_rows_than_features_is_fine():
    wide = RNG.normal(size=(9, 40))
    path = fit_path(wide, np.arange(9) % 3, n_lambdas=5, lambda_min_ratio=0.1)
    assert set(path.status) == {"converged"}
