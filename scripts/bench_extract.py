"""Extraction against the bare network, reading against a plain memory map, and what opening and re-running cost.

    python scripts/bench_extract.py [--only vision,text,memory,read,open,rerun] [--data ../shared/data] [--device cpu]

Both sides of a ratio run in turn, in this process, on the same samples, and the median over the rounds counts.  Beside
the wall clock the CPU time of the process is compared: it depends less on what else the machine is doing.  On a CPU
everything runs in this one process (``workers=0``), so that decoding and tokenizing count in full.  Real weights and
texts are taken from ``--data`` where they are; otherwise random weights and generated texts of the same shape.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from debugnet.artifacts.feature_store import load_features
from debugnet.artifacts.feature_writer import create_feature_store
from debugnet.artifacts.provenance import collect
from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.backbones.backbone import Backbone, ImageBackbone
from debugnet.data import DataSpec, load_dataset
from debugnet.data.images import decode_image
from debugnet.features.batches import read_blocks
from debugnet.features.extraction import choose_batch_size, extract_features


class Samples:
    """Rows made by a function of their number."""

    def __init__(self, n: int, make: Callable[[int], object]) -> None:
        self.n, self.make = n, make
        self.ids = [str(i) for i in range(n)]

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> object:
        return self.make(i)


def photographs(n: int, data: Path) -> Samples:
    """ImageNet photographs in their full size (usually 500 x 375), decoded when read; or generated JPEG files."""
    archive = data / "vision" / "imagenet_sample_photos.zip"
    if archive.exists():
        with zipfile.ZipFile(archive) as opened:
            files = [
                opened.read(name) for name in sorted(opened.namelist()) if name.lower().endswith((".jpg", ".jpeg"))
            ]
    else:
        files = generated_photographs()
    return Samples(n, lambda i: decode_image(files[i % len(files)]))


def generated_photographs() -> list[bytes]:
    """Smooth pictures with a little noise, so that they compress like photographs."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        noisy = np.asarray(coarse, dtype=np.int16) + rng.integers(-12, 13, (375, 500, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def texts(n: int, data: Path) -> Samples:
    """SST-2's sentences in their order, of 1 to 50 words; or random words in such lengths."""
    table = data / "text" / "sst2_train.tsv"
    if table.exists():
        train = load_dataset(DataSpec(str(table), text_columns=("sentence",), label_columns=("label",))).splits["train"]
        return Samples(n, lambda i: train[i % len(train)])
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(2.7, 0.6, n).clip(1, 60).astype(int)
    words = [" ".join(rng.choice(["the", "film", "was", "good", "dull", "long"], k)) for k in lengths]
    return Samples(n, words.__getitem__)


def vision_backbone(data: Path, device: str, scratch: Path) -> Backbone:
    """ResNet-50 at 224 pixels."""
    weights = data / "weights" / "resnet50_imagenet_decoded_pqf.npz"
    if not weights.exists():
        from torchvision.models import resnet50

        weights = scratch / "resnet50.pt"
        torch.save(resnet50(weights=None).state_dict(), weights)
    return load_backbone(BackboneSpec("resnet50", weights=str(weights)), device)


def text_backbone(data: Path, device: str, scratch: Path) -> Backbone:
    """MiniLM-L6 (6 layers, 384 features), mean pooling."""
    folder = data / "weights" / "minilm_l6_v2_fp16"
    if not folder.exists():
        raise SystemExit(f"the text benchmark needs all-MiniLM-L6-v2 as a folder at {folder}")
    return load_backbone(BackboneSpec(str(folder), pooling="mean"), device)


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def rates(backbone: Backbone, samples: Samples, rounds: int, workers: int, scratch: Path) -> dict[str, object]:
    """Samples per second of the bare network and of the whole extraction, in turn."""
    batch_size = choose_batch_size(backbone, samples[0])
    blocks = list(read_blocks(backbone, samples, 0, batch_size, 0))
    batches = [backbone._to_device(batch) for block in blocks for _, batch in block.batches]
    number = iter(range(1000))
    start = collect("features", {}, {})  # a fixed cost, which would weigh on so few samples

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches:
                backbone._forward(batch)

    def whole() -> None:
        path = scratch / f"{next(number)}.h5"
        with create_feature_store(path, {"train": len(samples)}, backbone.feature_dim, provenance=start) as writer:
            extract_features(backbone, {"train": samples}, writer, batch_size=batch_size, workers=workers)
            writer.flush()
        Path(f"{path}.partial").unlink()

    bare()
    whole()
    times = np.array([[clocked(bare), clocked(whole)] for _ in range(rounds)])  # (round, side, clock)
    ratios = np.median(times[:, 0] / times[:, 1], axis=0)
    best = len(samples) / times[:, :, 0].min(axis=0)
    return {
        "samples": len(samples),
        "batch": batch_size,
        "bare per second, best wall": round(best[0], 2),
        "extract per second, best wall": round(best[1], 2),
        "ratio, wall, median of rounds": round(ratios[0], 3),
        "ratio, CPU time, median of rounds": round(ratios[1], 3),
    }


def memory(scratch: Path) -> dict[str, object]:
    """Largest private memory (MiB) while n rows of 1024 features go through the store, for two n."""
    found = {}
    for n in (20_000, 200_000):
        done = subprocess.run(
            [sys.executable, __file__, "--memory-of", str(n), "--scratch", str(scratch)], capture_output=True, text=True
        )
        found[f"{n} rows"] = int(done.stdout)
    return found


def memory_of(n: int, scratch: Path) -> int:
    """Extract ``n`` rows with a trivial network and return the largest anonymous memory seen, in MiB."""
    from debugnet.backbones.backbone import TensorBackbone
    from debugnet.backbones.source import NetworkSource

    network = torch.nn.Sequential(torch.nn.Linear(64, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 2))
    spec = BackboneSpec("python:none:none", modality="tensor", input_shape=(64,))
    backbone = TensorBackbone(spec, NetworkSource(network, "tensor"), torch.device("cpu"))
    row = np.ones(64, dtype=np.float32)
    largest = 0

    def look(_: object = None) -> None:
        nonlocal largest
        status = Path("/proc/self/status").read_text()
        largest = max(largest, int(status.split("RssAnon:")[1].split()[0]) // 1024)

    path, start = scratch / f"memory{n}.h5", collect("features", {}, {})
    with create_feature_store(path, {"train": n}, 1024, provenance=start) as writer:
        extract_features(backbone, {"train": Samples(n, lambda i: row)}, writer, batch_size=256, on_block=look)
    look()
    Path(f"{path}.partial").unlink()
    return largest


def made_store(path: Path, n: int, d: int) -> None:
    """Write a store of n x d zeros."""
    block = np.zeros((max(1, (64 << 20) // (4 * d)), d), np.float32)
    with create_feature_store(path, {"train": n}, d, provenance=collect("features", {}, {})) as writer:
        for start in range(0, n, len(block)):
            writer.write("train", start, block[: n - start])
        writer.finish(
            labels={"train": np.zeros(n, np.int64)}, ids={"train": map(str, range(n))}, task="single-label",
            class_names=["a"], config={},
        )  # fmt: skip


def reading(scratch: Path, rounds: int) -> dict[str, object]:
    """Rows per second out of a store and out of a plain numpy memory map of the same rows, in turn."""
    n, d = 100_000, 2048
    made_store(scratch / "read.h5", n, d)
    np.save(scratch / "read.npy", np.zeros((n, d), np.float32))
    ours = load_features(scratch / "read.h5").split("train").X
    plain = np.load(scratch / "read.npy", mmap_mode="r")
    order = np.random.default_rng(0).permutation(n)

    def sequential(X: np.ndarray) -> Callable[[], object]:
        return lambda: [X[i : i + 256].sum() for i in range(0, n, 256)]

    def shuffled(X: np.ndarray) -> Callable[[], object]:
        return lambda: [X[np.sort(order[i : i + 256])].sum() for i in range(0, n, 256)]

    found: dict[str, object] = {}
    for name, way in (("sequential", sequential), ("shuffled", shuffled)):
        way(ours)(), way(plain)()
        mine, theirs = np.array([[clocked(way(ours))[0], clocked(way(plain))[0]] for _ in range(rounds)]).min(axis=0)
        found[f"{name}, thousand rows per second"] = round(n / mine / 1000)
        found[f"{name}, ratio to numpy.memmap"] = round(theirs / mine, 3)
    return found


def opening(scratch: Path) -> dict[str, object]:
    """Seconds and memory (MiB) to open a 10 GB store and to look at one row."""
    n, d = 1_250_000, 2048
    made_store(scratch / "large.h5", n, d)
    code = (
        "import sys, time; from debugnet.artifacts.feature_store import load_features;"
        "rss = lambda: int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0]) / 1024;"
        "before = rss(); start = time.perf_counter(); store = load_features(sys.argv[1]);"
        "opened = time.perf_counter() - start; row = store.split('train').X[999_999].sum();"
        "print(opened, time.perf_counter() - start, rss() - before)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, str(scratch / "large.h5")], capture_output=True, text=True).stdout
        for _ in range(5)
    ]
    opened, first_row, added = np.array([list(map(float, run.split())) for run in runs]).min(axis=0)
    size = (scratch / "large.h5").stat().st_size / 1e9
    (scratch / "large.h5").unlink()
    return {
        "size, GB": round(size, 2), "open, s": round(opened, 4), "first row, s": round(first_row, 4),
        "added memory, MiB": round(added, 1),
    }  # fmt: skip


def rerun(scratch: Path, data: Path) -> dict[str, object]:
    """Seconds of ``debugnet extract`` when its output is there already."""
    weights = data / "weights" / "cifar10_resnet20-12fca82f.th"
    images = data / "vision" / "cifar10_lossless.npz"
    if not weights.exists():
        return {"skipped": f"needs {weights}"}
    words = [sys.executable, "-m", "debugnet", "extract", "--backbone", "cifar_resnet20", "--weights", str(weights)]
    words += ["--data", str(images), "--limit", "50", "-o", str(scratch / "rerun.h5"), "--device", "cpu"]
    subprocess.run(words, check=True, capture_output=True)
    walls = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        walls.append(time.perf_counter() - start)
    return {"seconds": round(min(walls), 2)}


def main() -> None:
    """Run the chosen parts and write one JSON document to stdout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="vision,text,memory,read,open,rerun")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory_of:
        sys.stdout.write(f"{memory_of(given.memory_of, given.scratch)}\n")
        return
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        scratch = Path(folder)

        def against_bare(load: Callable[..., Backbone], samples: Samples) -> dict[str, object]:
            backbone = load(given.data, given.device, scratch)
            workers = given.workers if isinstance(backbone, ImageBackbone) else 0
            return rates(backbone, samples, given.rounds, workers, scratch)

        parts = {
            "vision": lambda: against_bare(vision_backbone, photographs(given.images, given.data)),
            "text": lambda: against_bare(text_backbone, texts(given.texts, given.data)),
            "memory": lambda: memory(scratch),
            "read": lambda: reading(scratch, given.rounds),
            "open": lambda: opening(scratch),
            "rerun": lambda: rerun(scratch, given.data),
        }
        found = {name: parts[name]() for name in given.only.split(",")}
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
