"""Files that the first released layout wrote stay readable, and mean the same."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import debugnet
from debugnet.artifacts.bundle import load_arrays, read_records, verify_bundle
from debugnet.artifacts.lineage import check_inputs, locate_input
from debugnet.artifacts.provenance import input_reference, read_provenance

HERE = Path(__file__).parent
DIGESTS = {  # first digits of digest and key
    "features.h5": ("0236e960e5ce6743", "5569d49d58e207d4"),
    "path.h5": ("131796e212d63355", "4cc2d7d8ed9f5658"),
    "head": ("5cc6335aefe4968c", "d4eded84cac837a9"),
    "analysis": ("560c73bd4ebbf391", "8c7fa10a68152f6b"),
}


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_artifacts_v1", HERE / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_features_stay_readable(make: ModuleType) -> None:
    store = debugnet.load_features(HERE / "features.h5", verify=True)
    train, val = store.split("train"), store.split("val")
    expected = make.features(6)
    expected[2] = np.nan
    np.testing.assert_array_equal(train.X, expected)
    np.testing.assert_array_equal(val.X, make.features(2))
    np.testing.assert_array_equal(train.status, [0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(train.y, [0, 1] * 3)
    assert list(val.ids) == ["val-é0", "val-é1"]
    np.testing.assert_array_equal(train.groups, [0, 0, 0, 1, 1, 1])
    usable = expected[train.usable].astype(np.float64)
    np.testing.assert_allclose(store.standardizer.mean, usable.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(store.standardizer.scale, usable.std(axis=0), rtol=1e-15)
    assert store.standardizer.scale[2] == 0
    assert (store.class_names, store.group_names) == (["cat", "dog"], ["early", "late"])
    assert store.config == {"backbone": {"name": "b"}, "data": {"name": "d"}}
    assert store.dense_head is not None and store.dense_head.weight.sum() == 6


def test_path_stays_readable(make: ModuleType) -> None:
    path = debugnet.load_path(HERE / "path.h5")
    for i, point in enumerate(make.points()):
        assert path.lam[i] == point.lam and path.status[i] == point.status
        np.testing.assert_array_equal(path.weight(i), point.weight)
        np.testing.assert_array_equal(path.bias(i), point.bias)
    np.testing.assert_array_equal(path.metrics["val"]["accuracy"], [0.5] * 3)
    assert path.meta["family"] == "multinomial"


def test_head_and_folder_stay_readable() -> None:
    head = debugnet.load_head(HERE / "head")
    weight, bias = debugnet.load_path(HERE / "path.h5").raw(2)
    np.testing.assert_array_equal(head.weight, weight)
    np.testing.assert_array_equal(head.bias, bias)
    assert head.meta["index"] == 2
    for name in ("head", "analysis"):
        verify_bundle(HERE / name)
    assert read_records(HERE / "analysis") == {"one": {"value": 0.5}}
    np.testing.assert_array_equal(load_arrays(HERE / "analysis", "one")["array"], np.arange(3))


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_keys_and_lineage_stay_what_they_were(name: str) -> None:
    assert input_reference(HERE / name)["digest"].startswith(DIGESTS[name][0])
    assert read_provenance(HERE / name).key.startswith(DIGESTS[name][1])
    check_inputs(HERE / name)


def test_lineage_is_followed() -> None:
    assert locate_input(HERE / "head", "features") == HERE / "features.h5"


def test_the_same_content_still_gets_the_same_digest(make: ModuleType, tmp_path: Path) -> None:
    make.make(tmp_path)
    for name in DIGESTS:
        assert input_reference(tmp_path / name)["digest"] == input_reference(HERE / name)["digest"]
