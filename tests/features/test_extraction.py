"""Every row's feature in its own place, whatever the batches, the memory and the interruptions."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from debugnet import interrupts
from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.feature_writer import create_feature_store
from debugnet.artifacts.provenance import collect
from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.data import BadSample, DataSpec, Status, load_dataset
from debugnet.errors import DeviceError, Interrupted
from debugnet.features.batches import TEXT_BATCHES_PER_BLOCK, read_blocks
from debugnet.features.extraction import BatchRunner, decayed, extract_features


class Rows:
    """A data set in memory; an exception among the samples is raised when its row is read."""

    def __init__(self, samples):
        self.samples = samples
        self.ids = [f"row{i}" for i in range(len(samples))]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, i):
        if isinstance(self.samples[i], Exception):
            raise self.samples[i]
        return self.samples[i]


def store(path, backbone, datasets, **options):
    """Extract ``datasets`` to ``path`` and return the store."""
    sizes = {name: len(rows) for name, rows in datasets.items()}
    with create_feature_store(path, sizes, backbone.feature_dim, provenance=collect("features", {}, {})) as writer:
        report = extract_features(backbone, datasets, writer, **{"batch_size": 4, **options})
        labels = {name: np.zeros(n, dtype=np.int64) for name, n in sizes.items()}
        ids = {name: rows.ids for name, rows in datasets.items()}
        writer.finish(labels=labels, ids=ids, task="single-label", class_names=["a"], config={})
    return load_features(path), report


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)) for _ in range(11)]


@pytest.fixture(scope="module")
def vision(cifar_resnet_weights):
    return load_backbone(BackboneSpec("cifar_resnet20", weights=str(cifar_resnet_weights)), "cpu")


@pytest.fixture(scope="module")
def language(language_model):
    return load_backbone(BackboneSpec(str(language_model("bert"))), "cpu")


@pytest.fixture(scope="module")
def texts(reviews):
    return Rows([line.split("\t")[1] for line in reviews.read_text().splitlines()[1:]])


def one_by_one(backbone, samples):
    with torch.inference_mode():
        return torch.cat([backbone.features(backbone.collate([sample])) for sample in samples]).numpy()


@pytest.mark.parametrize("workers", [0, 2])
def test_images_land_in_their_rows_and_bad_ones_keep_theirs(vision, images, tmp_path, workers):
    samples = list(images)
    samples[2] = BadSample(Status.DECODE_ERROR, "row2: broken")
    samples[7] = BadSample(Status.OVERSIZED, "row7: huge")
    samples[8:10] = [BadSample(Status.DECODE_ERROR, "x")] * 2
    made, report = store(tmp_path / "f.h5", vision, {"train": Rows(samples)}, workers=workers, batch_size=2)
    split = made.split("train")
    assert split.status.tolist() == [0, 0, 1, 0, 0, 0, 0, 2, 1, 1, 0]
    assert np.isnan(split.X[~split.usable]).all()
    expected = one_by_one(vision, [images[i] for i in np.flatnonzero(split.usable)])
    np.testing.assert_allclose(split.X[split.usable], expected, atol=1e-4)
    assert report.reasons == ["row2: broken", "row7: huge", "x", "x"] and report.n_rows == 11


def test_texts_sorted_by_length_land_in_their_rows(language, texts, tmp_path):
    n_block = 4 * TEXT_BATCHES_PER_BLOCK
    assert len(texts) > n_block  # more than one block
    made, report = store(tmp_path / "f.h5", language, {"train": texts, "val": Rows(texts.samples[:5])})
    expected = one_by_one(language, texts.samples)
    np.testing.assert_allclose(made.split("train").X, expected, atol=1e-5)
    np.testing.assert_allclose(made.split("val").X, expected[:5], atol=1e-5)
    lengths = np.array([len(text.split()) for text in texts.samples])
    assert report.n_truncated == (lengths > 18).sum() + (lengths[:5] > 18).sum() > 0


def test_texts_inside_a_block_are_sorted_longest_first(language, texts):
    for block in read_blocks(language, texts, 0, 4, 0):
        lengths = [batch["attention_mask"].sum(1).tolist() for _, batch in block.batches]
        flat = [n for batch in lengths for n in batch]
        assert flat == sorted(flat, reverse=True)
        places = np.concatenate([places for places, _ in block.batches])
        assert sorted(places) == list(range(len(block.status)))


def test_empty_texts_get_their_status(language, tmp_path):
    made, _ = store(tmp_path / "f.h5", language, {"train": Rows(["good film", "", " \t\n", "bad"])})
    assert made.split("train").status.tolist() == [0, 4, 4, 0]


def test_non_finite_features_get_their_status(vision, images, tmp_path, monkeypatch):
    plain = type(vision).features

    def features(self, batch, **options):
        found = plain(self, batch, **options)
        found[1, 5] = float("inf")
        return found

    monkeypatch.setattr(type(vision), "features", features)
    made, _ = store(tmp_path / "f.h5", vision, {"train": Rows(images[:8])})
    assert made.split("train").status.tolist() == [0, 3, 0, 0, 0, 3, 0, 0]


def test_two_runs_give_the_same_bytes(vision, images, tmp_path):
    first, _ = store(tmp_path / "a.h5", vision, {"train": Rows(images)})
    second, _ = store(tmp_path / "b.h5", vision, {"train": Rows(images)})
    assert first.split("train").X.tobytes() == second.split("train").X.tobytes()


def test_mixed_precision_is_close(vision, images, tmp_path):
    exact, _ = store(tmp_path / "a.h5", vision, {"train": Rows(images)})
    mixed, _ = store(tmp_path / "b.h5", vision, {"train": Rows(images)}, amp="bf16")
    difference = np.abs(exact.split("train").X - mixed.split("train").X).max()
    assert 0 < difference < 0.05 * np.abs(exact.split("train").X).max()


class Hungry:
    """A backbone whose device holds ``limit`` samples."""

    device = torch.device("cpu")

    def __init__(self, limit):
        self.limit, self.sizes = limit, []

    def features(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return batch * 2


def test_out_of_memory_redoes_only_that_batch_with_smaller_ones():
    backbone = Hungry(limit=20)
    runner = BatchRunner(backbone, 64)
    batch = torch.arange(100.0)[:, None]
    np.testing.assert_array_equal(runner(batch), 2 * batch.numpy())
    assert backbone.sizes == [64, 48, 32, 24, 16, 16, 16, 16, 16, 16, 4] and runner.batch_size == 16
    runner(batch[:20])
    assert backbone.sizes[-2:] == [16, 4]  # it stays with what fits
    with pytest.raises(DeviceError, match="out of memory on cpu with a single sample"):
        BatchRunner(Hungry(limit=0), 3)(batch[:3])


def test_the_ladder_goes_down_to_one():
    ladder = [64]
    while ladder[-1] > 1:
        ladder.append(decayed(ladder[-1]))
    assert ladder == [64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1]
    assert decayed(100) == 96 and decayed(96) == 64 and decayed(1) == 1


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_signal_stops_between_batches_and_the_same_call_goes_on(vision, language, images, texts, tmp_path, modality):
    backbone, rows = (vision, Rows(images)) if modality == "image" else (language, texts)
    expected, _ = store(tmp_path / "whole.h5", backbone, {"train": rows})
    path, computed = tmp_path / "f.h5", []

    def interrupt(block):
        computed.append(block.start)
        os.kill(os.getpid(), signal.SIGTERM)

    with interrupts.install():
        with (
            create_feature_store(
                path, {"train": len(rows)}, backbone.feature_dim, provenance=collect("features", {}, {})
            ) as writer,
            pytest.raises(Interrupted) as caught,
        ):
            extract_features(backbone, {"train": rows}, writer, batch_size=4, on_block=interrupt)
    assert caught.value.exit_code == 143 and computed == [0] and not path.exists()
    interrupts._received = None
    resumed, report = store(path, backbone, {"train": rows})
    assert report.n_rows == len(rows) - (4 if modality == "image" else 4 * TEXT_BATCHES_PER_BLOCK)
    assert resumed.split("train").X.tobytes() == expected.split("train").X.tobytes()


def test_a_dead_worker_is_named(vision, images):
    class Deadly(Rows):
        def __getitem__(self, i):
            os._exit(1)

    with pytest.raises(DeviceError, match="a worker process died after row 0 .* run the same command again"):
        list(read_blocks(vision, Deadly(images), 0, 4, 1))


def test_arrays_reach_networks_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "flat_net.py").write_text(
        "import torch\nfrom torch import nn\n\ndef make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x_train=x, y_train=np.arange(9) % 2)
    splits = load_dataset(DataSpec(str(tmp_path / "x.npz"), val_fraction=0))
    backbone = load_backbone(BackboneSpec("python:flat_net:make", modality="tensor", input_shape=(2, 3)), "cpu")
    made, _ = store(tmp_path / "f.h5", backbone, splits.splits)
    np.testing.assert_allclose(made.split("train").X, backbone.network[:3](torch.from_numpy(x)).numpy(), atol=1e-6)


def test_the_gpu_batch_follows_the_measured_memory(vision, images, monkeypatch):
    """The arithmetic of the choice, on a machine without a GPU: 100 MB per sample, 40 GB free."""
    from debugnet.features import extraction

    allocated = iter([2_000_000_000])
    monkeypatch.setattr(extraction.torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(extraction.torch.cuda, "memory_allocated", lambda device: next(allocated))
    monkeypatch.setattr(extraction.torch.cuda, "max_memory_allocated", lambda device: 2_400_000_000)
    monkeypatch.setattr(extraction.torch.cuda, "mem_get_info", lambda device: (40_000_000_000, 80_000_000_000))
    monkeypatch.setattr(extraction.BatchRunner, "__call__", lambda self, batch: None)
    fake = SimpleNamespace(device=torch.device("cuda"), collate=vision.collate)
    assert extraction.choose_batch_size(fake, images[0]) == 128  # 200 fit into half of it
    assert extraction.choose_batch_size(vision, images[0]) == 32
