"""A path comes back as it was fitted, survives kills between its points, and can be extended."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from debugnet.artifacts.path_store import PathWriter, load_path, path_points, save_path
from debugnet.artifacts.provenance import collect
from debugnet.errors import InputError, Locked, OutputExists
from debugnet.regularization_path import PathPoint, RegularizationPath
from debugnet.standardization import Standardizer

PROVENANCE = collect("path", {"l1_ratio": 0.9}, {})
META = {"family": "multinomial", "class_names": ["a", "b", "ü"], "tol": 1e-6}
STANDARDIZER = Standardizer(np.arange(7.0), np.arange(7.0))


def make_points(n: int) -> list[PathPoint]:
    rng = np.random.default_rng(0)
    return [
        PathPoint(
            lam=0.5**i,
            weight=rng.normal(size=(3, 7)) * (rng.random((3, 7)) < 0.2 * i),
            bias=rng.normal(size=3),
            objective=rng.random(),
            duality_gap=float("nan") if i == 1 else rng.random(),
            kkt_residual=1e-9,
            status="stalled" if i == 2 else "converged",
            n_epochs=1.5 * i,
            seconds=0.1,
            metrics={"val": {"accuracy": rng.random(), "loss": float("nan")}, "train": {"loss": 0.3}},
        )
        for i in range(n)
    ]


def assert_same(found: RegularizationPath, expected: RegularizationPath) -> None:
    for name in ("lam", "indptr", "indices", "data", "biases", "objective", "duality_gap", "kkt_residual", "n_epochs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert list(found.status) == list(expected.status)
    for split, metrics in expected.metrics.items():
        for name, values in metrics.items():
            np.testing.assert_array_equal(found.metrics[split][name], values)
    np.testing.assert_array_equal(found.standardizer.mean, expected.standardizer.mean)
    assert found.meta == expected.meta


def test_a_path_comes_back_exactly(tmp_path: Path) -> None:
    points = make_points(4)
    expected = RegularizationPath.from_points(points, STANDARDIZER, META)
    with PathWriter(tmp_path / "p.h5", PROVENANCE) as writer:
        for point in points:
            writer.append(point)
        writer.finish(STANDARDIZER, META)
    assert_same(load_path(tmp_path / "p.h5"), expected)
    assert os.listdir(tmp_path) == ["p.h5"]
    assert load_path(save_path(tmp_path / "q.h5", expected, PROVENANCE)).status[2] == "stalled"
    assert (tmp_path / "q.h5").read_bytes() == (tmp_path / "p.h5").read_bytes()
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_array_equal(file["weights/data"][:], expected.data)
    for again, point in zip(path_points(load_path(tmp_path / "p.h5")), points, strict=True):
        np.testing.assert_array_equal(again.weight, point.weight)


def test_a_fit_goes_on_after_its_last_point(tmp_path: Path) -> None:
    points = make_points(3)
    child = os.fork()
    if child == 0:
        writer = PathWriter(tmp_path / "p.h5", PROVENANCE)
        writer.append(points[0])
        writer.append(points[1])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "p.h5.partial" / "point-00002.safetensors").write_bytes(b"torn")  # a kill before its JSON
    with pytest.raises(InputError, match=r"p.h5.partial is not finished: run the command"):
        load_path(tmp_path / "p.h5")
    with PathWriter(tmp_path / "p.h5", PROVENANCE) as writer:
        kept = writer.points()
        assert len(kept) == 2
        np.testing.assert_array_equal(kept[1].weight, points[1].weight)
        assert np.isnan(kept[1].duality_gap) and np.isnan(kept[1].metrics["val"]["loss"])
        writer.append(points[2])
        writer.finish(STANDARDIZER, META)
    assert_same(load_path(tmp_path / "p.h5"), RegularizationPath.from_points(points, STANDARDIZER, META))


def test_a_finished_path_is_extended_with_more_points(tmp_path: Path) -> None:
    points = make_points(5)
    save_path(tmp_path / "p.h5", RegularizationPath.from_points(points[:3], STANDARDIZER, META), PROVENANCE)
    longer = collect("path", {"l1_ratio": 0.9, "n_lambdas": 5}, {})
    for n_more in (1, 2):  # interrupted after one more point, then finished
        known = path_points(load_path(tmp_path / "p.h5"))
        with PathWriter(tmp_path / "p.h5", longer, points=known) as writer:
            for point in points[len(writer.points()) : 3 + n_more]:
                writer.append(point)
            if n_more == 2:
                writer.finish(STANDARDIZER, META)
    assert_same(load_path(tmp_path / "p.h5"), RegularizationPath.from_points(points, STANDARDIZER, META))


def test_partial_paths_of_other_options_and_other_writers_are_left_alone(tmp_path: Path) -> None:
    point = make_points(1)[0]
    with PathWriter(tmp_path / "p.h5", PROVENANCE) as writer:
        writer.append(point)
        child = os.fork()
        if child == 0:
            try:
                PathWriter(tmp_path / "p.h5", PROVENANCE)
            except Locked:
                os._exit(75)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    other = collect("path", {"l1_ratio": 0.5}, {})
    with pytest.raises(OutputExists, match="begun with l1_ratio 0.9 instead of 0.5; --force discards it"):
        PathWriter(tmp_path / "p.h5", other)
    with PathWriter(tmp_path / "p.h5", other, force=True) as writer:
        assert writer.points() == []
        with pytest.raises(InputError, match="would have no point"):
            writer.finish(STANDARDIZER, META)


def test_a_damaged_point_is_named(tmp_path: Path) -> None:
    with PathWriter(tmp_path / "p.h5", PROVENANCE) as writer:
        writer.append(make_points(1)[0])
    file = tmp_path / "p.h5.partial" / "point-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"point-00000.json is damaged .*delete .*p.h5.partial and fit again"):
        PathWriter(tmp_path / "p.h5", PROVENANCE).points()


def test_every_flipped_bit_in_a_path_file_is_found(tmp_path: Path) -> None:
    path = save_path(tmp_path / "p.h5", RegularizationPath.from_points(make_points(3), STANDARDIZER, META), PROVENANCE)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        mutant = bytearray(content)
        mutant[rng.integers(len(mutant))] ^= 1 << rng.integers(8)
        path.write_bytes(mutant)
        with pytest.raises(InputError, match="p.h5"):
            load_path(path)
