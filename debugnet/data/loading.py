"""From a :class:`DataSpec` to splits that every stage can use."""

from __future__ import annotations

from debugnet.data.dataset import DatasetSplits
from debugnet.data.spec import DataSpec
from debugnet.data.splits import limited, split_off
from debugnet.errors import InputError
from debugnet.registry import DATASETS


def load_dataset(spec: DataSpec) -> DatasetSplits:
    """Load a data set by its manifest; samples are read later, one by one.

    The data's own splits are kept.  Where it has no val, ``spec.val_fraction`` of train becomes val, seeded and
    stratified (see :func:`debugnet.data.splits.strata`).  A missing test split stays missing.

    Parameters
    ----------
    spec : DataSpec
        What to load.

    Returns
    -------
    DatasetSplits
        At least "train".

    Raises
    ------
    InputError
        Nothing there, nothing readable, or labels that cannot be used; one line that says what to do.
    """
    loaded: DatasetSplits = DATASETS.load(spec.resolved_kind())(spec)
    if "train" not in loaded.splits:
        raise InputError(f"'{spec.path}' has no train split, only {', '.join(loaded.splits) or 'nothing'}")
    for dataset in loaded.splits.values():
        dataset.flag_duplicate_ids()
    splits = {name: limited(dataset, spec.limit, spec.seed) for name, dataset in loaded.splits.items()}
    if "val" not in splits and spec.val_fraction > 0 and spec.labeled:
        train, val = split_off(splits["train"], spec.val_fraction, spec.seed)
        if len(val):
            splits = {"train": train, "val": val} | {name: s for name, s in splits.items() if name != "train"}
    loaded.splits = {name: splits[name] for name in ("train", "val", "test") if name in splits}
    return loaded
