"""Folders, zip archives, arrays and torchvision sets of images."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from debugnet.data import BadSample, Dataset, DataSpec, Status, load_dataset
from debugnet.errors import InputError

COLOURS = {"ant": (200, 0, 0), "bee": (0, 200, 0)}


def picture(colour: tuple[int, int, int], i: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), tuple(c + i for c in colour)).save(stream, "PNG")
    return stream.getvalue()


def members(splits: dict[str, int], prefix: str = "") -> dict[str, bytes]:
    return {
        f"{prefix}{split}{'/' if split else ''}{name}/{i:02d}.png": picture(colour, i)
        for split, count in splits.items()
        for name, colour in COLOURS.items()
        for i in range(count)
    }


def folder(root: Path, files: dict[str, bytes]) -> str:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return str(root)


def archive(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as handle:
        for name, data in files.items():
            handle.writestr(name, data)
    return str(path)


def pixels(dataset: Dataset) -> np.ndarray:
    return np.stack([np.asarray(dataset[i]) for i in range(len(dataset))])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_equals_the_folder_it_was_made_from(tmp_path: Path, method: int) -> None:
    files = members({"train": 10, "test": 3})
    unpacked = load_dataset(DataSpec(folder(tmp_path / "set", files)))
    packed = load_dataset(DataSpec(archive(tmp_path / "set.zip", files, method)))
    assert list(unpacked.splits) == list(packed.splits) == ["train", "val", "test"]
    for name, split in unpacked.splits.items():
        assert split.ids == packed.splits[name].ids
        assert np.array_equal(split.labels, packed.splits[name].labels)
        assert np.array_equal(pixels(split), pixels(packed.splits[name]))
    assert {name: len(split) for name, split in packed.splits.items()} == {"train": 18, "val": 2, "test": 6}
    assert packed.class_names == ["ant", "bee"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip"]  # nothing was unpacked


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_layouts(tmp_path: Path, prefix: str) -> None:
    sizes = [
        ({"": 10}, {"train": 18, "val": 2}),
        ({"train": 10, "valid": 3}, {"train": 20, "val": 6}),
        ({"train": 5, "validation": 1, "test": 2}, {"train": 10, "val": 2, "test": 4}),
    ]
    for i, (given, expected) in enumerate(sizes):
        splits = load_dataset(DataSpec(archive(tmp_path / f"{i}.zip", members(given, prefix)))).splits
        assert {name: len(split) for name, split in splits.items()} == expected


def test_separate_folders_for_val_and_test(tmp_path: Path) -> None:
    train = folder(tmp_path / "a", members({"": 4}))
    val = folder(tmp_path / "b", members({"": 2}))
    splits = load_dataset(DataSpec(train, val=val)).splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 8, "val": 4}
    assert splits["val"].ids[0] == "../b/ant/00.png" and np.asarray(splits["val"][0])[0, 0, 0] == 200


def test_no_row_vanishes(tmp_path: Path) -> None:
    files = members({"": 2}) | {"ant/broken.jpg": b"junk", "ant/film.gif": b"GIF89a", "ant/readme.txt": b"hello"}
    splits = load_dataset(DataSpec(folder(tmp_path, files), val_fraction=0))
    train = splits.splits["train"]
    assert train.ids == ["ant/00.png", "ant/01.png", "ant/broken.jpg", "ant/film.gif", "bee/00.png", "bee/01.png"]
    for i in (2, 3):
        with pytest.raises(BadSample, match=train.ids[i]) as caught:
            train[i]
        assert caught.value.status == Status.DECODE_ERROR
    assert splits.notes == ["1 files that are no images were ignored"]


def test_a_file_that_goes_away_is_a_bad_row(tmp_path: Path) -> None:
    train = load_dataset(DataSpec(folder(tmp_path, members({"": 2})), val_fraction=0)).splits["train"]
    (tmp_path / "ant/00.png").unlink()
    with pytest.raises(BadSample, match="ant/00.png: No such file"):
        train[0]


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    folder(tmp_path, members({"": 2}))
    (tmp_path / "ant/again").symlink_to(tmp_path)
    assert len(load_dataset(DataSpec(str(tmp_path), val_fraction=0)).splits["train"]) == 4


def test_fingerprints(tmp_path: Path) -> None:
    def fingerprint(name: str, files: dict[str, bytes]) -> str:
        return load_dataset(DataSpec(archive(tmp_path / name, files), val_fraction=0)).fingerprint("train")

    files = members({"": 2})
    other = files | {"ant/00.png": picture((1, 2, 3), 0)}
    assert fingerprint("a.zip", files) == fingerprint("b.zip", dict(reversed(files.items())))
    assert fingerprint("a.zip", files) != fingerprint("c.zip", other)


def test_the_same_picture_in_two_splits_is_reported(tmp_path: Path) -> None:
    same = archive(tmp_path / "a.zip", members({"train": 3, "test": 2}))
    assert (
        "4 of 4 test rows have the same content as a train row"
        in load_dataset(DataSpec(same, val_fraction=0)).warnings()
    )


def _read_all(dataset: Dataset, queue: multiprocessing.queues.Queue) -> None:
    queue.put(pixels(dataset).tobytes())


@pytest.mark.parametrize("kind", ["zip", "npz"])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_other_processes_read_the_same(tmp_path: Path, kind: str, start: str) -> None:
    if kind == "zip":
        path = archive(tmp_path / "a.zip", members({"": 4}))
    else:
        path = str(tmp_path / "a.npz")
        np.savez(path, images=np.arange(5 * 48, dtype=np.uint8).reshape(5, 4, 4, 3), labels=[0, 1, 0, 1, 1])
    train = load_dataset(DataSpec(path, val_fraction=0)).splits["train"]
    expected = pixels(train).tobytes()  # opens the file here first
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    workers = [context.Process(target=_read_all, args=(train, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=60) for _ in workers] == [expected, expected]
    for worker in workers:
        worker.join()
    assert len(pickle.dumps(train)) < 5000  # paths and offsets, no pictures and no handles


def test_damage_inside_a_zip_is_found(tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "a.zip", members({"": 2}), zipfile.ZIP_STORED))
    train = load_dataset(DataSpec(str(path), val_fraction=0)).splits["train"]
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 6] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadSample, match=r"ant/00.png: zip member is damaged"):
        train[0]


@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "a/../../x.png", "C:\\x.png", "..\\x.png"])
def test_names_that_leave_the_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leaves the archive; refused"):
        load_dataset(DataSpec(archive(tmp_path / "a.zip", members({"": 2}) | {name: b"x"})))


def test_links_and_passwords_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    link = zipfile.ZipInfo("ant/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as handle:
        handle.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="symbolic link"):
        load_dataset(DataSpec(str(path)))
    data = bytearray(Path(archive(path, members({"": 1}))).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted"):
        load_dataset(DataSpec(str(path)))


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "a.zip", {"ant/0.png": bytes(10_000_000)})
    with pytest.raises(InputError, match="refused as a zip bomb"):
        load_dataset(DataSpec(bomb))
    filled = {f"ant/{i}.png": np.random.default_rng(i).bytes(100_000) for i in range(4)}
    liar = Path(archive(tmp_path / "b.zip", filled))  # honest in sum, one member lies about its size
    data = bytearray(liar.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 10)
    liar.write_bytes(data)
    with pytest.raises(BadSample, match="damaged"):
        load_dataset(DataSpec(str(liar), val_fraction=0)).splits["train"][0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no images"),
        ({"ant/readme.txt": b"x"}, "holds no images"),
        ({"0.png": b"x"}, "image '0.png' is in no class folder"),
        (members({"train": 1}) | {"extra/0.png": b"x"}, "has train beside 'extra'"),
        (members({"train": 1}) | {"test/wasp/0.png": b"x"}, "class 'wasp' of test has no image in train"),
        (members({"test": 1}), "has no train split, only test"),
    ],
)
def test_folders_and_zips_that_cannot_be_used(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    (tmp_path / "set").mkdir()
    for path in (folder(tmp_path / "set", files), archive(tmp_path / "set.zip", files)):
        with pytest.raises(InputError, match=message) as caught:
            load_dataset(DataSpec(path))
        assert "\n" not in str(caught.value)


def test_a_truncated_zip(tmp_path: Path) -> None:
    path = Path(archive(tmp_path / "a.zip", members({"": 3})))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a complete zip file"):
        load_dataset(DataSpec(str(path)))


def test_arrays(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    x = {f"x_{split}": rng.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8) for split, n in (("train", 40), ("test", 6))}
    y = {"y_train": np.arange(40) % 2, "y_test": np.arange(6) % 2}
    np.savez(
        path,
        **x,
        **y,
        classes=["cat", "dog"],
        groups_train=y["y_train"],
        groups_test=y["y_test"],
        group_names=["a", "b"],
    )
    splits = load_dataset(DataSpec(str(path)))
    assert {name: len(split) for name, split in splits.splits.items()} == {"train": 36, "val": 4, "test": 6}
    assert (splits.class_names, splits.group_names) == (["cat", "dog"], ["a", "b"])
    val = splits.splits["val"]
    assert np.array_equal(pixels(val), x["x_train"][[int(name.rpartition(":")[2]) for name in val.ids]])
    assert np.array_equal(val.groups, val.labels)


def test_grey_arrays_and_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.full((2, 4, 4), 7, dtype=np.uint8), labels=["x", "y"])
    splits = load_dataset(DataSpec(str(path), val_fraction=0))
    assert splits.modality == "image" and np.asarray(splits.splits["train"][0])[0, 0].tolist() == [7, 7, 7]
    np.savez(path, x_train=np.ones((2, 9)), y_train=[[0, 1], [1, 1]])
    splits = load_dataset(DataSpec(str(path), val_fraction=0))
    assert (splits.modality, splits.task) == ("tensor", "multi-label")
    assert splits.splits["train"][1].dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros(3)}, "has no x_train or images; it has pictures"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8)}, "'images' but no 'labels'"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "labels": [0, 1]}, "3 rows of 'images' but 2 of 'labels'"),
        ({"images": np.zeros((3, 4, 4, 2), np.uint8), "labels": [0, 1, 0]}, "images are uint8"),
        ({"images": np.zeros((3, 4, 4, 3), np.int64), "labels": [0, 1, 0]}, "images are uint8"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([{}, 1], dtype=object)}, "cannot be read"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load_dataset(DataSpec(str(tmp_path / "a.npz")))


def test_truncated_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((3, 4, 4), np.uint8), labels=[0, 1, 0])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="not a complete .npz file"):
        load_dataset(DataSpec(str(path)))


def idx(values: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def test_torchvision_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, n in (("train", 20), ("t10k", 4)):
        images = np.arange(n * 784, dtype=np.uint8).reshape(n, 28, 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx((np.arange(n) % 2).astype(np.uint8)))
    splits = load_dataset(DataSpec("torchvision:MNIST", root=str(tmp_path)))
    assert {name: len(split) for name, split in splits.splits.items()} == {"train": 18, "val": 2, "test": 4}
    test = pickle.loads(pickle.dumps(splits.splits["test"]))
    assert test[1].size == (28, 28) and test.labels.tolist() == [0, 1, 0, 1] and len(splits.class_names) == 10


def test_torchvision_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'CIFAR10' is not usable under.*Put its files there") as caught:
        load_dataset(DataSpec("torchvision:CIFAR10", root=str(tmp_path)))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no data set 'Cifar'"):
        load_dataset(DataSpec("torchvision:Cifar"))
