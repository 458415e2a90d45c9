"""What goes into a feature store comes out, exactly, and the wrong things do not go in."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from debugnet.artifacts import container
from debugnet.artifacts.column_statistics import column_statistics
from debugnet.artifacts.container import StoredArray
from debugnet.artifacts.feature_store import create_feature_store, load_features
from debugnet.artifacts.hdf5_layout import Shape, layout
from debugnet.artifacts.provenance import collect, input_reference, read_provenance
from debugnet.errors import InputError, OutputExists


def test_a_store_gives_back_what_was_written(extraction: Any, tmp_path: Path) -> None:
    store = load_features(extraction.run(tmp_path / "f.h5"), verify=True)
    for name, X in extraction.features.items():
        split = store.split(name)
        expected = np.where(np.isnan(X).any(axis=1)[:, None], np.nan, X)
        assert isinstance(split.X, np.memmap) and split.X.dtype == np.float32
        np.testing.assert_array_equal(split.X, expected)
        np.testing.assert_array_equal(split.y, extraction.labels[name])
        assert list(split.ids) == extraction.ids[name] == split.ids[:]
        assert split.ids[-1] == extraction.ids[name][-1]
        np.testing.assert_array_equal(split.usable, ~np.isnan(X).any(axis=1))
        np.testing.assert_array_equal(np.concatenate([x for _, x in split.blocks(4)]), expected)
    assert store.split("train").status[9] == 3
    np.testing.assert_array_equal(store.split("train").groups, extraction.labels["train"])
    assert store.split("test").groups is None
    assert (store.class_names, store.group_names, store.task) == (["cat", "dog"], ["even", "odd"], "single-label")
    assert store.config["backbone"] == {"name": "x"}
    assert store.dense_head is not None and store.dense_head.family == "multinomial"
    np.testing.assert_array_equal(store.dense_head.weight, np.arange(10.0).reshape(2, 5))
    assert store.provenance == extraction.provenance
    assert os.listdir(tmp_path) == ["f.h5"]


def test_the_standardizer_is_that_of_the_usable_train_rows_alone(extraction: Any, tmp_path: Path) -> None:
    before = load_features(extraction.run(tmp_path / "a.h5"))
    usable = extraction.features["train"][before.split("train").usable].astype(np.float64)
    np.testing.assert_allclose(before.standardizer.mean, usable.mean(axis=0), rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(before.standardizer.scale, usable.std(axis=0), rtol=1e-14)
    assert before.standardizer.scale[3] == 0 and before.standardizer.mean[3] == np.float64(np.float32(0.1))
    np.testing.assert_array_equal(before.feature_min, usable.min(axis=0))
    np.testing.assert_array_equal(before.feature_max, usable.max(axis=0))
    extraction.features["test"] += 100
    after = load_features(extraction.run(tmp_path / "b.h5"))
    np.testing.assert_array_equal(after.standardizer.mean, before.standardizer.mean)
    np.testing.assert_array_equal(after.standardizer.scale, before.standardizer.scale)
    assert after.digest != before.digest


def test_column_statistics_lose_no_digits_to_a_large_mean() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(9000, 300)) * 1e-4 + 1e4
    X[:, 7] = 0.1
    usable = rng.random(9000) < 0.9
    found = column_statistics(X, usable)
    exact = X[usable] - 1e4  # exact in float64 (Sterbenz), so plain two-pass formulas have digits to spare
    live = np.arange(300) != 7
    np.testing.assert_allclose(found["mean"][live], 1e4 + exact.mean(axis=0)[live], rtol=1e-15)
    np.testing.assert_allclose(found["scale"][live], exact.std(axis=0)[live], rtol=1e-9)
    assert found["scale"][7] == 0 and found["mean"][7] == 0.1
    with pytest.raises(InputError, match="no train row is usable"):
        column_statistics(X, np.zeros(9000, bool))


def test_other_tools_read_the_file_as_plain_hdf5(extraction: Any, tmp_path: Path) -> None:
    path = extraction.run(tmp_path / "f.h5")
    store = load_features(path)
    with h5py.File(path) as file:
        assert file.attrs["format"] == "debugnet features 1"
        np.testing.assert_array_equal(file["train/features"][:], store.split("train").X)
        np.testing.assert_array_equal(file["test/labels"][:], store.split("test").y)
        np.testing.assert_array_equal(file["statistics/scale"][:], store.standardizer.scale)
        assert json.loads(file["header"][()])["meta"]["class_names"] == ["cat", "dog"]


def test_the_same_content_has_the_same_digest_whatever_the_batches(extraction: Any, tmp_path: Path) -> None:
    first = extraction.run(tmp_path / "a.h5")
    extraction.batch = 3
    assert extraction.run(tmp_path / "b.h5").read_bytes() == first.read_bytes()
    extraction.provenance = collect("features", {"backbone": "x"}, {}, seconds=9)
    assert input_reference(extraction.run(tmp_path / "c.h5"))["digest"] == input_reference(first)["digest"]
    extraction.labels["test"][0] += 1
    assert input_reference(extraction.run(tmp_path / "d.h5"))["digest"] != input_reference(first)["digest"]


def test_headers_serve_provenance_without_the_arrays(extraction: Any, tmp_path: Path) -> None:
    path = extraction.run(tmp_path / "f.h5")
    assert read_provenance(path) == extraction.provenance
    assert input_reference(path) == {"kind": "features", "path": str(path), "digest": load_features(path).digest}


@pytest.mark.parametrize(
    "labels", [np.array([[0, 1, 1], [1, 0, 0]]), np.array([0.5, -1.0]), np.array([[0.5, 2], [1, 3]])]
)
def test_multi_label_and_real_valued_labels(extraction: Any, tmp_path: Path, labels: np.ndarray) -> None:
    with create_feature_store(tmp_path / "f.h5", {"train": 2}, 1, provenance=extraction.provenance) as writer:
        writer.write("train", 0, np.array([[1.0], [2.0]]))
        task = "regression" if labels.dtype == float else "multi-label"
        path = writer.finish(labels={"train": labels}, ids={"train": "ab"}, task=task, class_names=[], config={})
    found = load_features(path).split("train").y
    np.testing.assert_array_equal(found, labels)
    assert found.dtype == (np.float64 if labels.dtype == float else np.uint8)


def test_rows_with_a_status_become_nan_and_keep_it(extraction: Any, tmp_path: Path) -> None:
    with create_feature_store(tmp_path / "f.h5", {"train": 3}, 2, provenance=extraction.provenance) as writer:
        writer.write("train", 0, np.array([[1, 2], [3, np.inf], [5, 6]]), np.array([1, 0, 0]))
        np.testing.assert_array_equal(writer.status("train"), [1, 3, 0])
        path = writer.finish(
            labels={"train": np.zeros(3, int)}, ids={"train": "abc"}, task="single-label", class_names="a", config={}
        )
    split = load_features(path).split("train")
    np.testing.assert_array_equal(split.X, [[np.nan] * 2, [np.nan] * 2, [5, 6]])
    np.testing.assert_array_equal(split.status, [1, 3, 0])


def test_float16_holds_half_precision_exactly_and_refuses_what_does_not_fit(extraction: Any, tmp_path: Path) -> None:
    extraction.dtype = "float16"
    extraction.features = {k: np.nan_to_num(X).astype(np.float16) for k, X in extraction.features.items()}
    split = load_features(extraction.run(tmp_path / "f.h5")).split("train")
    assert split.X.dtype == np.float16
    np.testing.assert_array_equal(split.X, extraction.features["train"])
    with create_feature_store(tmp_path / "g.h5", {"train": 2}, 2, "float16", provenance=extraction.provenance) as w:
        with pytest.raises(InputError, match=r"feature -70000 \(split train, row 1, feature 0\).*65504.*float32"):
            w.write("train", 0, np.array([[1.0, 2], [-7e4, 1]]))
        w.write("train", 0, np.array([[1.0, 2], [-65504, 1]]))


def test_rows_out_of_order_or_of_another_width_are_refused(extraction: Any, tmp_path: Path) -> None:
    with create_feature_store(tmp_path / "f.h5", {"train": 3}, 2, provenance=extraction.provenance) as writer:
        for start, shape in ((1, (1, 2)), (0, (4, 2)), (0, (1, 3))):
            with pytest.raises(ValueError, match="next is 0"):
                writer.write("train", start, np.zeros(shape))
        with pytest.raises(ValueError, match="train has 0 of 3 rows"):
            writer.finish(labels={}, ids={}, task="", class_names=[], config={})
    with pytest.raises(ValueError, match="float32 or float16"):
        create_feature_store(tmp_path / "g.h5", {"train": 3}, 2, "int8", provenance=extraction.provenance)


def test_a_partial_store_of_other_options_is_kept_unless_forced(extraction: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with create_feature_store(path, {"train": 3}, 2, provenance=extraction.provenance) as writer:
        writer.write("train", 0, np.ones((2, 2)))
    other = collect("features", {"backbone": "y"}, {})
    with pytest.raises(OutputExists, match='begun with backbone "x" instead of "y"; --force discards it'):
        create_feature_store(path, {"train": 3}, 2, provenance=other)
    with create_feature_store(path, {"train": 3}, 2, provenance=extraction.provenance) as writer:
        assert writer.next_row("train") == 2
    with create_feature_store(path, {"train": 3}, 2, provenance=other, force=True) as writer:
        assert writer.next_row("train") == 0


def test_a_partial_store_is_not_read_and_says_how_to_go_on(extraction: Any, tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    create_feature_store(path, {"train": 3}, 2, provenance=extraction.provenance).close()
    for name in (path, tmp_path / "f.h5.partial"):
        with pytest.raises(InputError, match="f.h5.partial is not finished: run the command that makes it again"):
            load_features(name)


def test_missing_files_folders_and_splits_are_named(extraction: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere.h5 does not exist"):
        load_features(tmp_path / "nowhere.h5")
    with pytest.raises(InputError, match="is a folder"):
        load_features(tmp_path)
    with pytest.raises(InputError, match="no split 'val': it has train, test"):
        load_features(extraction.run(tmp_path / "f.h5")).split("val")


def test_opening_ten_gigabytes_takes_neither_time_nor_memory(extraction: Any, tmp_path: Path) -> None:
    path, shape = tmp_path / "f.h5", Shape("<f4", (1_300_000, 2048))
    offset = layout({"train/features": shape}).offsets["train/features"]
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    n = shape.shape[0]
    small = {"train/labels": np.zeros(n, np.int64), "train/status": np.zeros(n, np.uint8)}
    small |= {"train/ids_utf8": np.zeros(n * 30, np.uint8), "train/ids_ends": np.arange(n, dtype=np.uint64) * 30}
    small |= {f"statistics/{name}": np.ones(2048) for name in ("mean", "scale", "min", "max")}
    meta = {"task": "single-label", "class_names": [str(i) for i in range(1000)], "group_names": [], "config": {}}
    meta |= {"n_features": 2048, "splits": [{"name": "train"}], "dense_class_names": None}
    filled = {"train/features": StoredArray(*shape, offset, [0] * (shape.nbytes // container.CRC_BLOCK + 1))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "allocate", os.ftruncate)  # holes instead of 10 GB of disk
        container.seal(descriptor, "features", filled, small, meta, extraction.provenance)
    os.close(descriptor)
    assert path.stat().st_size > 10e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(5):
        start = time.process_time()
        X = load_features(path).split("train").X
        seconds.append(time.process_time() - start)
    assert X.shape == shape.shape and X[-1, -1] == 0
    assert min(seconds) < 0.1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 20_000  # KiB
