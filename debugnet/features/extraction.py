"""Running a network over a data set: every row's deep feature into its place of a feature store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from debugnet import interrupts
from debugnet.artifacts.feature_writer import FeatureStoreWriter
from debugnet.backbones.backbone import Backbone, TextBackbone
from debugnet.data import Dataset
from debugnet.errors import DeviceError
from debugnet.features.batches import Block, read_blocks
from debugnet.progress import Progress

#: Data types of automatic mixed precision.
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: On a CPU larger batches gain nothing and leave the caches.
_CPU_BATCH = 32
_GPU_BATCH_LIMITS = (8, 512)
#: Share of the free GPU memory that the chosen batch may need.
_GPU_MEMORY_SHARE = 0.5
#: Reasons for unusable rows that are kept to be shown.
_SHOWN_REASONS = 10


@dataclass
class ExtractionReport:
    """What one extraction did beside writing features.

    Attributes
    ----------
    batch_size : int
        The one it ended with.
    n_truncated : int
        Texts cut at the longest length (of the rows computed in this run).
    reasons : list of str
        Why the first few unusable rows are unusable.
    n_rows : int
        Rows computed in this run.
    """

    batch_size: int
    n_truncated: int = 0
    reasons: list[str] = field(default_factory=list)
    n_rows: int = 0


class BatchRunner:
    """Computes features, with smaller and smaller batches while the GPU's memory does not suffice.

    Parameters
    ----------
    backbone : Backbone
    batch_size : int
        Largest batch to try.
    amp : str, optional
        "bf16" or "fp16" for mixed precision.
    """

    def __init__(self, backbone: Backbone, batch_size: int, amp: str | None = None) -> None:
        self.backbone, self.batch_size, self.amp = backbone, batch_size, amp

    def __call__(self, batch: Any) -> np.ndarray:
        """Return the features (b, d), float32, of a collated batch.

        Raises
        ------
        DeviceError
            If not even one sample fits.
        """
        n_samples, pieces, done = _length(batch), [], 0
        while done < n_samples:
            piece = _slice(batch, done, done + self.batch_size)
            try:
                pieces.append(self._features(piece))
            except torch.cuda.OutOfMemoryError as error:
                self._shrink(_length(piece), error)
                continue
            done += _length(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _features(self, batch: Any) -> np.ndarray:
        with torch.inference_mode(), autocast(self.backbone.device, self.amp):
            return self.backbone.features(batch).cpu().numpy()

    def _shrink(self, failed: int, error: BaseException) -> None:
        if failed <= 1:
            raise DeviceError(f"out of memory on {self.backbone.device} with a single sample: {error}") from error
        self.batch_size = decayed(failed)
        torch.cuda.empty_cache()


def autocast(device: torch.device, amp: str | None) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for ``amp`` "bf16" or "fp16", or nothing for None."""
    return torch.autocast(device.type, dtype=AMP_TYPES[amp]) if amp else contextlib.nullcontext()


def decayed(batch_size: int) -> int:
    """Return the next smaller batch: 64, 48, 32, 24, 16, … (the ladder of timm's ``decay_batch_step``)."""
    power = 1 << (batch_size.bit_length() - 1)
    if batch_size > power:
        return max(power * 3 // 2 if batch_size > power * 3 // 2 else power, 1)
    return max(power * 3 // 4, 1)


def choose_batch_size(backbone: Backbone, sample: Any) -> int:
    """Choose how many samples to run at once: fixed on a CPU, by measured memory on a GPU.

    Parameters
    ----------
    backbone : Backbone
    sample : object
        One sample as the data set gives it; a text counts as one of the longest length.
    """
    if backbone.device.type != "cuda":
        return _CPU_BATCH
    n_probe = 4
    if isinstance(backbone, TextBackbone):
        sample = f"{sample} " * backbone.max_length
    batch = backbone.collate([sample] * n_probe)
    device = backbone.device
    runner = BatchRunner(backbone, n_probe)
    runner(batch)  # kernels are chosen and workspaces allocated on the first run
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    runner(batch)
    per_sample = max(1, (torch.cuda.max_memory_allocated(device) - before) // n_probe)
    fitting = int(_GPU_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0] / per_sample)
    smallest, largest = _GPU_BATCH_LIMITS
    return max(smallest, min(largest, 1 << max(0, fitting.bit_length() - 1)))


def extract_features(
    backbone: Backbone,
    datasets: Mapping[str, Dataset],
    writer: FeatureStoreWriter,
    *,
    batch_size: int,
    workers: int = 0,
    amp: str | None = None,
    on_block: Callable[[Block], None] | None = None,
) -> ExtractionReport:
    """Compute and write the features of all rows that ``writer`` does not have yet.

    Between batches a signal that has arrived stops the work (see :mod:`debugnet.interrupts`); the
    writer then holds every finished block, and the same call goes on from there.

    Parameters
    ----------
    backbone : Backbone
    datasets : mapping of split to Dataset
    writer : FeatureStoreWriter
    batch_size, workers : int
    amp : str, optional
        "bf16" or "fp16".
    on_block : callable, optional
        Called with every block after it was written.

    Returns
    -------
    ExtractionReport
    """
    report = ExtractionReport(batch_size)
    runner = BatchRunner(backbone, batch_size, amp)
    total = sum(map(len, datasets.values()))
    done = sum(writer.next_row(split) for split in datasets)
    unit = {"image": "image", "text": "text"}.get(backbone.modality, "row")
    with Progress(total, "extract", unit, initial=done) as progress, interrupts.deferred():
        for split, dataset in datasets.items():
            for block in read_blocks(backbone, dataset, writer.next_row(split), batch_size, workers):
                features = _run(block, runner, backbone.feature_dim, progress)
                writer.write(split, block.start, features, block.status)
                report.n_rows += len(block.status)
                report.n_truncated += block.n_truncated
                report.reasons += block.reasons[: _SHOWN_REASONS - len(report.reasons)]
                progress.update(int(np.count_nonzero(block.status)))
                if on_block is not None:
                    on_block(block)
                _stop_if_asked(writer)
    report.batch_size = runner.batch_size
    return report


def _run(block: Block, runner: BatchRunner, n_features: int, progress: Progress) -> np.ndarray:
    features = np.full((len(block.status), n_features), np.nan, dtype=np.float32)
    for places, batch in block.batches:
        interrupts.check()  # a block of texts is many batches: give it up rather than let a person wait
        features[places] = runner(batch)
        progress.update(len(places))
    return features


def _stop_if_asked(writer: FeatureStoreWriter) -> None:
    if interrupts.received() is not None:
        writer.flush()
    interrupts.check()


def _length(batch: Any) -> int:
    return len(next(iter(batch.values()))) if isinstance(batch, dict) else len(batch)


def _slice(batch: Any, start: int, stop: int) -> Any:
    if isinstance(batch, dict):
        return {name: tensor[start:stop] for name, tensor in batch.items()}
    found: Tensor = batch[start:stop]
    return found
