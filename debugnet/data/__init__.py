"""Data sets: rows with stable ids and a status, in seeded, stratified splits."""

from __future__ import annotations

from debugnet.data.dataset import BadSample, Dataset, DatasetSplits, Status
from debugnet.data.loading import load_dataset
from debugnet.data.spec import DataSpec

__all__ = ["BadSample", "DataSpec", "Dataset", "DatasetSplits", "Status", "load_dataset"]
