"""``debugnet extract`` as a whole: its options, its errors, and that it never does or loses work for nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.lineage import check_inputs
from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.data import DataSpec, load_dataset
from debugnet.errors import DeviceError, InputError, OutputExists, TooManyBadRows, UsageError
from debugnet.recipes import Extract
from debugnet.stages.extract import run


@pytest.fixture
def vision(cifar_resnet_weights, image_arrays, tmp_path) -> Extract:
    return Extract(
        "cifar_resnet20",
        str(image_arrays),
        tmp_path / "f.h5",
        weights=str(cifar_resnet_weights),
        device="cpu",
        workers=0,
    )


@pytest.fixture
def language(language_model, reviews, tmp_path) -> Extract:
    return Extract(
        str(language_model("bert")), str(reviews), tmp_path / "t.h5",
        text_column=("sentence",), label_column="label", device="cpu",
    )  # fmt: skip


def debugnet(*words, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "debugnet", *map(str, words)], capture_output=True, text=True, timeout=120, **options
    )


def command(options: Extract) -> list[str]:
    words = ["extract", "--backbone", options.backbone, "--data", options.data, "-o", str(options.output)]
    words += ["--weights", options.weights] if options.weights else []
    return [*words, "--device", "cpu", "--workers", "0"]


def test_what_is_stored(vision):
    result = run(vision)
    store = load_features(vision.output, verify=True)
    assert {n: len(s) for n, s in store.splits.items()} == {"train": 36, "val": 4, "test": 10}
    assert result.summary["rows"] == {"train": 36, "val": 4, "test": 10} and not result.reused
    backbone = load_backbone(BackboneSpec.from_json(store.config["backbone"]), "cpu")
    splits = load_dataset(DataSpec.from_json(store.config["data"]))
    for name, dataset in splits.splits.items():
        split = store.split(name)
        assert list(split.ids) == dataset.ids and np.array_equal(split.y, dataset.labels)
        expected = backbone.features(backbone.collate(list(dataset))).numpy()
        np.testing.assert_allclose(split.X, expected, atol=1e-5)
        assert store.config["data_fingerprints"][name] == splits.fingerprint(name)
    np.testing.assert_allclose(store.standardizer.mean, store.split("train").X.mean(0, dtype=np.float64), atol=1e-6)
    check_inputs(vision.output)


def test_a_head_of_other_classes_is_kept_whole_and_a_map_restricts_it(vision, tmp_path):
    run(vision)  # 10 CIFAR classes, 4 classes in the data
    whole = load_features(vision.output).dense_head
    assert whole.weight.shape == (10, 64) and whole.class_names[0] == "airplane"
    (tmp_path / "map.json").write_text(json.dumps({"0": "ship", "1": "cat", "2": 0, "3": "dog"}))
    mapped = dataclasses.replace(vision, class_map=tmp_path / "map.json", output=tmp_path / "g.h5")
    result = run(mapped)
    store = load_features(mapped.output)
    np.testing.assert_array_equal(store.dense_head.weight, whole.weight[[8, 3, 0, 5]])
    assert list(store.dense_head.class_names) == store.class_names == ["0", "1", "2", "3"]
    test = store.split("test")
    assert result.summary["dense_accuracy"]["test"] == np.mean(store.dense_head.predict(test.X) == test.y)


def test_texts_with_validation_and_multi_label(language_model, tmp_path):
    lines = ["text,bad,long"] + [f"the film was dull,{i % 2},{int(i > 5)}" for i in range(12)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    options = Extract(
        str(language_model("bert", False)), str(tmp_path / "a.csv"), tmp_path / "t.h5", pool="mean",
        text_column=("text",), label_columns=("bad", "long"), test=str(tmp_path / "a.csv"), val_fraction=0.25,
        dtype="float16", device="cpu", max_bad=1.0,
    )  # fmt: skip
    run(options)
    store = load_features(tmp_path / "t.h5")
    assert store.task == "multi-label" and store.class_names == ["bad", "long"] and store.dense_head is None
    assert {n: len(s) for n, s in store.splits.items()} == {"train": 9, "val": 3, "test": 12}
    assert store.split("train").X.dtype == np.float16


def test_numbers_get_the_names_of_their_classes(language, tmp_path):
    numbered = tmp_path / "numbered.tsv"
    rows = [f"{word} film {i}\t{label}" for i in range(6) for label, word in enumerate(["bad", "good"])]
    numbered.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    named = dataclasses.replace(language, data=str(numbered), class_names=("negative", "positive"))
    assert load_features(run(named).path).class_names == ["negative", "positive"]
    folder = tmp_path / "photos" / "train"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / name / f"{i}.png")
    with pytest.raises(UsageError, match="cat, dog"):
        run(dataclasses.replace(named, data=str(folder.parent), output=tmp_path / "p.h5"))


def test_a_second_run_touches_nothing_and_loads_no_torch(vision, language):
    for options in (vision, language):
        run(options)
        before = options.output.stat()
        code = (
            "import sys; from pathlib import Path; from debugnet.recipes import Extract;"
            "from debugnet.stages.extract import run;"
            f"options = Extract(**{ {f.name: getattr(options, f.name) for f in dataclasses.fields(options)}!r});"
            "result = run(options); assert result.reused, result;"
            "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
        ).replace("PosixPath", "Path")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert options.output.stat() == before


def test_what_counts_as_another_artifact(vision, tmp_path, cifar_resnet_weights):
    run(vision)
    moved = tmp_path / "moved.th"
    moved.write_bytes(cifar_resnet_weights.read_bytes())
    for harmless in ({"weights": str(moved)}, {"batch_size": 7}, {"workers": 1}, {"max_bad": 0.5}):
        assert run(dataclasses.replace(vision, **harmless)).reused
    for change, named in [
        ({"layer": "layer3"}, "layer null instead of"),
        ({"dtype": "float16"}, "dtype"),
        ({"amp": "bf16"}, "amp"),
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"limit": 8}, "limit"),
    ]:
        with pytest.raises(OutputExists, match=f"{named}|{named.split()[0]}"):
            run(dataclasses.replace(vision, **change))
    with open(moved, "ab") as file:
        file.write(b"\0")
    with pytest.raises(OutputExists, match="another backbone"):
        run(dataclasses.replace(vision, weights=str(moved)))
    assert not run(dataclasses.replace(vision, seed=1), force=True).reused
    assert load_features(vision.output).provenance.options["seed"] == 1


def picture_zip(path: Path, broken: int) -> Path:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(40):
            place = f"{'train' if i < 30 else 'test'}/{'ab'[i % 2]}/{i:03}.png"
            with archive.open(place, "w") as file:
                if i % 10 < broken:
                    file.write(b"\x89PNG but not really")
                else:
                    Image.fromarray(rng.integers(0, 256, (33, 40, 3), dtype=np.uint8)).save(file, "PNG")
    return path


def test_too_many_bad_rows_keep_the_work_and_can_be_accepted(vision, tmp_path):
    data = picture_zip(tmp_path / "pictures.zip", broken=1)
    options = dataclasses.replace(vision, data=str(data))
    with pytest.raises(TooManyBadRows, match=r"4 of 40 rows are unusable, .*000\.png \(decode error\)") as caught:
        run(options)
    assert not options.output.exists() and Path(f"{options.output}.partial").exists()
    suggested = float(str(caught.value).rpartition(" ")[2])
    result = run(dataclasses.replace(options, max_bad=suggested))
    assert result.summary["rows_computed"] == 0  # nothing was done twice
    assert sum(result.summary["unusable"].values()) == 4
    store = load_features(options.output)
    for split in store.splits.values():
        for i, name in enumerate(split.ids):
            broken = int(Path(name).stem) % 10 == 0
            assert split.status[i] == (1 if broken else 0) and np.isnan(split.X[i]).all() == broken


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"device": "cuda:97"}, DeviceError, "no device 'cuda:97'"),
        ({"data": "nowhere.zip"}, InputError, "nowhere.zip"),
        ({"weights": "nowhere.th"}, InputError, "--weights nowhere.th: no such file"),
        ({"backbone": "cifar_resnet21"}, InputError, "did you mean 'cifar_resnet"),
        ({"layer": "layer7"}, UsageError, "no such module"),
        ({"pool": "mean"}, UsageError, "--pool mean"),
    ],
)
def test_bad_input_leaves_nothing_behind(vision, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        run(dataclasses.replace(vision, **change))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("f.h5") and not p.name.endswith(".lock")]


def test_networks_and_data_must_go_together(vision, language):
    with pytest.raises(UsageError, match="reads text data, --data holds image data"):
        run(dataclasses.replace(language, data=vision.data, text_column=(), label_column=None))
    with pytest.raises(UsageError, match="reads image data, --data holds text data"):
        run(dataclasses.replace(vision, data=language.data, text_column=("sentence",), label_column="label"))


def test_options_are_checked_before_anything_runs():
    for bad in ({"batch_size": 0}, {"workers": -1}, {"label_column": "a", "label_columns": ("b",)}):
        with pytest.raises(UsageError, match="--"):
            Extract("resnet18", "x", **bad)


def test_the_command_line(vision, tmp_path):
    done = debugnet(*command(vision), cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == f"{vision.output}\n", done.stderr
    again = debugnet(*command(vision), "--json", cwd=tmp_path)
    document = json.loads(again.stdout)
    assert document["reused"] and document["rows"] == {"train": 36, "val": 4, "test": 10}
    other = debugnet(*command(vision), "--dtype", "float16", cwd=tmp_path)
    assert other.returncode == 4 and "--force" in other.stderr and other.stdout == ""
    assert debugnet("extract", "--backbone", "resnet18").returncode == 2
    elsewhere = debugnet(*command(dataclasses.replace(vision, data="none.npz")), cwd=tmp_path)
    assert elsewhere.returncode == 3 and len(elsewhere.stderr.strip().splitlines()) == 1


SLOW_NET = """
import os, time
from debugnet.backbones.cifar_resnet import CifarResNet
import torch

class Slow(CifarResNet):
    image_size = 32
    def forward(self, x):
        time.sleep(float(os.environ.get("DELAY", "0")))
        return super().forward(x)

def make():
    torch.manual_seed(0)
    return Slow(8)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_runs_resume_to_the_same_bytes(vision, tmp_path, monkeypatch, one_thread, number):
    (tmp_path / "slow_net.py").write_text(SLOW_NET)
    options = dataclasses.replace(vision, backbone="python:slow_net:make", weights=None, batch_size=2)
    words = [*command(options), "--batch-size", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DELAY": "0.1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "debugnet", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    journal = Path(f"{options.output}.partial.journal")
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), stderr
    assert stdout == "" and not options.output.exists()
    if number != signal.SIGKILL:
        assert "to go on: debugnet extract" in stderr
    monkeypatch.chdir(tmp_path)
    assert 0 < run(options).summary["rows_computed"] < 50
    whole = dataclasses.replace(options, output=tmp_path / "whole.h5")
    assert run(whole).summary["rows_computed"] == 50
    for name, split in load_features(whole.output, verify=True).splits.items():
        assert load_features(options.output).split(name).X.tobytes() == split.X.tobytes()


@pytest.fixture
def one_thread():
    """Kernels may sum in another order with another number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    sys.modules.pop("slow_net", None)
