"""From a data set to batches that are ready for the network, read ahead of it.

A *block* is a run of rows of the data set.  Its good rows come as one or more batches, each with
the rows' places in the block; texts are sorted by length inside a block, so that little padding is
computed, and their features still land in their own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from debugnet.backbones.backbone import Backbone, ImageBackbone, TextBackbone
from debugnet.data import BadSample, Dataset, Status
from debugnet.errors import DeviceError

#: Batches per block of texts: enough to sort by length, little to lose when a run is killed.
TEXT_BATCHES_PER_BLOCK = 16


@dataclass
class Block:
    """Consecutive rows of a data set.

    Attributes
    ----------
    start : int
        Row of the first.
    status : ndarray (n,), uint8
        0 for rows that are in a batch.
    batches : list of (places, batch)
        Places (b,) int64 in the block, and what ``Backbone.features`` takes.
    reasons : list of str
        Why rows are unusable, one line each.
    n_truncated : int
        Texts that were cut at the longest length.
    """

    start: int
    status: np.ndarray
    batches: list[tuple[np.ndarray, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    n_truncated: int = 0

    def pin_memory(self) -> Block:
        """Move the batches to page-locked memory (a DataLoader calls this in a thread)."""
        self.batches = [(places, batch.pin_memory()) for places, batch in self.batches]
        return self


def read_blocks(backbone: Backbone, dataset: Dataset, start: int, batch_size: int, workers: int) -> Iterator[Block]:
    """Yield the blocks of ``dataset`` from row ``start`` on.

    Parameters
    ----------
    backbone : Backbone
    dataset : Dataset
    start : int
    batch_size : int
    workers : int
        Processes that decode and resize images; 0 reads in this process.  Texts are read and
        tokenized by a thread (the tokenizer runs outside Python).
    """
    if isinstance(backbone, TextBackbone):
        return _text_blocks(backbone, dataset, start, batch_size)
    return _sample_blocks(backbone, dataset, start, batch_size, workers)


class _SampleBlocks(torch.utils.data.Dataset[Block]):
    """What the workers do: read and decode rows, and make them one batch of the network's size."""

    def __init__(self, dataset: Dataset, prepare: Callable[[Any], Tensor]) -> None:
        self.dataset, self.prepare = dataset, prepare

    def __getitem__(self, rows: range) -> Block:
        block = Block(rows.start, np.zeros(len(rows), dtype=np.uint8))
        tensors = []
        for place, row in enumerate(rows):
            try:
                tensors.append(self.prepare(self.dataset[row]))
            except BadSample as bad:
                block.status[place] = int(bad.status)
                block.reasons.append(bad.reason)
        if tensors:
            block.batches = [(np.flatnonzero(block.status == 0), torch.stack(tensors))]
        return block


def _to_float(sample: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(sample, dtype=np.float32))


def _sample_blocks(backbone: Backbone, dataset: Dataset, start: int, batch_size: int, workers: int) -> Iterator[Block]:
    prepare = backbone.preprocessing.to_pixels if isinstance(backbone, ImageBackbone) else _to_float
    n_rows = len(dataset)
    loader = DataLoader(
        _SampleBlocks(dataset, prepare),
        batch_size=None,  # whole blocks, so that a resumed run cuts its batches where the first run did
        sampler=[range(i, min(i + batch_size, n_rows)) for i in range(start, n_rows, batch_size)],
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=backbone.device.type == "cuda",
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error):
            raise
        raise DeviceError(
            f"a worker process died after row {start} (killed for its memory?): try fewer --workers, or 0 to read in "
            "the main process; run the same command again to go on"
        ) from error


def _text_blocks(backbone: TextBackbone, dataset: Dataset, start: int, batch_size: int) -> Iterator[Block]:
    size = batch_size * TEXT_BATCHES_PER_BLOCK
    starts = range(start, len(dataset), size)
    with ThreadPoolExecutor(1, thread_name_prefix="tokenizer") as reader:
        waiting = None
        for first in starts:
            following = reader.submit(_text_block, backbone, dataset, first, size, batch_size)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _text_block(backbone: TextBackbone, dataset: Dataset, start: int, size: int, batch_size: int) -> Block:
    stop = min(start + size, len(dataset))
    block = Block(start, np.zeros(stop - start, dtype=np.uint8))
    places, texts = [], []
    for place in range(stop - start):
        try:
            text = dataset[start + place]
            if not text.strip():
                raise BadSample(Status.EMPTY_TEXT, f"{dataset.ids[start + place]}: empty text")
        except BadSample as bad:
            block.status[place] = int(bad.status)
            block.reasons.append(bad.reason)
            continue
        places.append(place)
        texts.append(text)
    if texts:
        rows, truncated = backbone.tokenize(texts)
        block.n_truncated = int(truncated.sum())
        # Longest first: if the memory does not suffice, it shows at once.  Stable, so that it is deterministic.
        order = np.argsort([-len(row["input_ids"]) for row in rows], kind="stable")
        for part in np.split(order, range(batch_size, len(order), batch_size)):
            block.batches.append((np.array(places)[part], backbone.pad([rows[i] for i in part])))
    return block
