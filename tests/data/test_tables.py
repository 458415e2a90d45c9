"""Text tables: columns, labels, ids, and what bad ones get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from debugnet.data import BadSample, DataSpec, Status, load_dataset
from debugnet.errors import InputError


def table(folder: Path, text: str | bytes, name: str = "data.csv") -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def load(path: str, **options: object) -> object:
    return load_dataset(DataSpec(path, **({"val_fraction": 0} | options)))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_the_same_rows_from_every_format(tmp_path: Path, kind: str) -> None:
    rows = [("a fine film", 1), ("a dull one", 0), ("so so, really", 1)]
    path = tmp_path / f"data.{kind}"
    if kind in ("csv", "tsv"):
        quote = '"' if kind == "csv" else ""
        separator = "," if kind == "csv" else "\t"
        path.write_text("".join(f"{quote}{t}{quote}{separator}{y}\n" for t, y in [("text", "label"), *rows]))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    else:
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        pyarrow.parquet.write_table(arrow.table({"text": [t for t, _ in rows], "label": [y for _, y in rows]}), path)
    splits = load(str(path))
    train = splits.splits["train"]
    assert [train[i] for i in range(3)] == [t for t, _ in rows]
    assert train.labels.tolist() == [1, 0, 1] and train.labels.dtype == np.int64
    assert train.ids == [f"data.{kind}:{i}" for i in range(3)]
    assert (splits.class_names, splits.task, splits.modality) == (["0", "1"], "single-label", "text")


def test_quotes_and_line_breaks(tmp_path: Path) -> None:
    train = load(table(tmp_path, 'text,label\n"he said ""no"",\nthen left",a\nplain,b\n')).splits["train"]
    assert [train[0], train[1]] == ['he said "no",\nthen left', "plain"]
    train = load(table(tmp_path, 'text\tlabel\n"open\ta\nshut"\tb\n', "data.tsv")).splits["train"]
    assert [train[0], train[1]] == ['"open', 'shut"']


@pytest.mark.parametrize(
    ("cells", "names", "labels"),
    [
        (["7", "3", "3", "10"], ["3", "7", "10"], [1, 0, 0, 2]),
        (["2.0", "1.0", "2", "1"], ["1", "2"], [1, 0, 1, 0]),
        (["spam", "ham", "ham", "eggs"], ["eggs", "ham", "spam"], [2, 1, 1, 0]),
        (["-1", "1", "1", "-1"], ["-1", "1"], [0, 1, 1, 0]),
        (["1", "0", "", "1"], ["0", "1"], [1, 0, -1, 1]),
        (["1", "0", "nan", "-1"], ["0", "1"], [1, 0, -1, -1]),
        (["yes", "no", "", "3"], ["3", "no", "yes"], [2, 1, -1, 0]),
    ],
)
def test_labels_of_any_spelling(tmp_path: Path, cells: list[str], names: list[str], labels: list[int]) -> None:
    splits = load(table(tmp_path, "text,label\n" + "".join(f"t{i},{c}\n" for i, c in enumerate(cells))))
    assert (splits.class_names, splits.splits["train"].labels.tolist()) == (names, labels)
    assert (splits.splits["train"].status == 5).tolist() == [y == -1 for y in labels]


def test_class_indices_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    one = load(table(tmp_path, "text,label\nx,b\ny,a\nz,c\n")).class_names
    assert one == load(table(tmp_path, "text,label\nz,c\nx,b\ny,a\n")).class_names


def test_multi_label_and_minus_one(tmp_path: Path) -> None:
    splits = load(table(tmp_path, "text,rude,loud\na,0,1\nb,1,1\nc,-1,-1\n"), label_columns=("rude", "loud"))
    train = splits.splits["train"]
    assert (splits.task, splits.class_names) == ("multi-label", ["rude", "loud"])
    assert train.labels.tolist() == [[0, 1], [1, 1], [0, 0]] and train.labels.dtype == np.uint8
    assert train.status.tolist() == [0, 0, Status.LABEL_MISSING]


def test_regression_on_request(tmp_path: Path) -> None:
    path = table(tmp_path, "text,label\na,0.5\nb,-2\nc,\n")
    train = load(path, task="regression").splits["train"]
    assert train.labels[:2].tolist() == [0.5, -2.0] and train.status.tolist() == [0, 0, 5]
    with pytest.raises(InputError, match="0.5 is no class number; use --task regression"):
        load(path)


def test_own_val_and_test_files_are_kept(tmp_path: Path) -> None:
    train = table(tmp_path, "text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(20)))
    val, test = (table(tmp_path, f"text,label\n{n},1\nt3,0\n", f"{n}.csv") for n in ("val", "test"))
    splits = load_dataset(DataSpec(train, val=val, test=test))
    assert {name: len(s) for name, s in splits.splits.items()} == {"train": 20, "val": 2, "test": 2}
    lines = splits.warnings()
    assert "1 of 2 val rows have the same content as a train row" in lines
    assert "1 of 2 test rows have the same content as a val row" in lines


def test_val_comes_from_train_when_there_is_none(tmp_path: Path) -> None:
    path = table(tmp_path, "text,label\n" + "".join(f"t{i},{i % 2}\n" for i in range(40)))
    splits = load_dataset(DataSpec(path)).splits
    assert list(splits) == ["train", "val"] and len(splits["val"]) == 4
    assert np.bincount(splits["val"].labels).tolist() == [2, 2]
    assert sorted(splits["train"].ids + splits["val"].ids) == sorted(f"data.csv:{i}" for i in range(40))
    assert load_dataset(DataSpec(path)).splits["val"].ids == splits["val"].ids
    assert load_dataset(DataSpec(path, seed=1)).splits["val"].ids != splits["val"].ids


def test_texts_joined_ids_and_groups(tmp_path: Path) -> None:
    path = table(tmp_path, "key,title,body,label,source\nk1,T,B,0,web\nk2,U,,1,\nk1,V,C,1,mail\n")
    splits = load(path, text_columns=("title", "body"), id_column="key", group_column="source")
    train = splits.splits["train"]
    assert (train[0], train.ids) == ("T\nB", ["k1", "k2", "k1"])
    assert (splits.group_names, train.groups.tolist()) == (["mail", "web"], [1, -1, 0])
    assert train.status.tolist() == [0, 0, Status.DUPLICATE_ID]
    with pytest.raises(BadSample, match="k1: duplicate id"):
        train[2]


def test_empty_texts_and_broken_bytes(tmp_path: Path) -> None:
    splits = load(table(tmp_path, b"\xef\xbb\xbftext,label\n  ,0\ncaf\xe9,1\ncaf\xc3\xa9,1\nnul\0,0\n"))
    train = splits.splits["train"]
    with pytest.raises(BadSample) as caught:
        train[0]
    assert caught.value.status == Status.EMPTY_TEXT and str(caught.value) == "data.csv:0: empty text"
    assert [train[i] for i in (1, 2, 3)] == ["caf\ufffd", "caf\u00e9", "nul\ufffd"]
    assert splits.notes == ["train: 1 rows had bytes that are not UTF-8; replaced by U+FFFD"]


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    def fingerprint(text: str) -> str:
        return load(table(tmp_path, text)).fingerprint("train")

    base = fingerprint("text,label\na,0\nb,1\n")
    assert base == fingerprint("text,label\na,0\nb,1\n")
    assert (
        len({base, *map(fingerprint, ("text,label\na,0\nc,1\n", "text,label\na,1\nb,0\n", "text,label\nb,0\na,1\n"))})
        == 4
    )


def test_prediction_needs_no_labels(tmp_path: Path) -> None:
    splits = load(table(tmp_path, "text\nhello\n"), labeled=False)
    assert splits.splits["train"].labels.tolist() == [-1] and splits.splits["train"][0] == "hello"


def test_a_long_text_is_one_cell(tmp_path: Path) -> None:
    path = table(tmp_path, "text,label\n" + "x" * 300_000 + ",1\n")
    assert len(load(path).splits["train"][0]) == 300_000


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty: it has no rows"),
        ("text,label\n", {}, "is empty: it has no rows"),
        ("a,b\nx,1\n", {}, "which column holds the text.*it has a, b"),
        ("text,sentence,label\nx,y,1\n", {}, "which column holds the text"),
        ("text,label\nx,1\n", {"text_columns": "body"}, "has no column 'body'; it has text, label"),
        ("text,label\nx,1\n", {"label_columns": "klass"}, "has no column 'klass'; it has text, label"),
        ("text,text\nx,1\n", {}, "names a column twice"),
        ("text,label\nx,1\ny\n", {}, "line 3: 1 cells under 2 column names"),
        ('text,label\n"x,1\n', {}, "line 2: unexpected end of data"),
        ("text,label\n" + "".join(f"t{i},\n" for i in range(12)) + "x,1\n", {}, "12 of 13 train.*:9 and 2 more"),
        ("text,a,b\nx,0,3\n", {"label_columns": ("a", "b")}, "'b' is not 0/1 in train rows data.csv:0"),
        ("text,label\nx,warm\n", {"task": "regression"}, "not a number in train rows data.csv:0"),
        ("text,label\nx,9\ny,0\n", {"class_names": ("no", "yes")}, "class 9 of train does not occur in the given"),
    ],
)  # fmt: skip
def test_bad_tables_get_one_line(tmp_path: Path, text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(table(tmp_path, text), **options)
    assert "\n" not in str(caught.value)


def test_a_class_that_train_lacks(tmp_path: Path) -> None:
    train, val = table(tmp_path, "text,label\nx,a\ny,b\n"), table(tmp_path, "text,label\nx,c\n", "val.csv")
    with pytest.raises(InputError, match="class c of val does not occur in train: val.csv:0"):
        load(train, val=val)


@pytest.mark.parametrize(("name", "text"), [("d.jsonl", "{]\n"), ("d.jsonl", "[1]\n"), ("d.parquet", "PAR1")])
def test_damaged_files(tmp_path: Path, name: str, text: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="d\\."):
        load(table(tmp_path, text, name))


def test_nothing_there() -> None:
    with pytest.raises(InputError, match="no data at 'nowhere.csv'"):
        load("nowhere.csv")
