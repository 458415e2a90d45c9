"""``debugnet train-sparse``: a network on raw inputs that uses few of them -> ``sparse/``."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect
from debugnet.errors import DeviceError, NotConverged, UsageError
from debugnet.recipes.train_sparse import TrainSparse
from debugnet.stages.result import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from debugnet.artifacts.bundle import BundleWriter
    from debugnet.data.spec import DataSpec

RESULT = "sparse.json"


def run(options: TrainSparse, *, force: bool = False) -> Result:
    """Train the whole path and write ``sparse.json``, masks, networks, importance and figures.

    Raises
    ------
    UsageError
        A network whose inputs cannot be switched off, a pattern that matches nothing, groups that
        do not fit.
    NotConverged
        Training diverged before anything was reached.
    """
    options = _resolve(options)
    spec = _data_spec(options)
    inputs = _inputs(options, spec)
    output = options.output or Path("runs") / f"sparse-{options.method}" / "sparse"
    reused = check_output(output, "sparse", options, inputs, force=force)
    if not reused:
        from debugnet.stages.fit_points import limited_threads

        with limited_threads(options.threads):
            _make(options, spec, output, inputs, force)
    from debugnet.artifacts.bundle import read_json

    found = read_json(output / RESULT)
    return Result(output, found["summary"], reused, found["text"])


def _resolve(options: TrainSparse) -> TrainSparse:
    if "none" in options.against and len(options.against) > 1:
        raise UsageError(f"--against {','.join(options.against)}: none stands alone")
    sizes = tuple(sorted(set(options.sizes)))
    against = tuple(name for name in options.against if name != "none")
    if options.penalize != "inputs":
        against = ()  # hidden units have no ANOVA, and a random choice of them is no selection of inputs
    return dataclasses.replace(options, sizes=sizes, against=against)


def _data_spec(options: TrainSparse) -> DataSpec:
    from debugnet.data.spec import DataSpec

    return DataSpec(
        options.data, task=options.task, val_fraction=options.val_fraction, limit=options.limit, seed=options.seed
    )


def _inputs(options: TrainSparse, spec: DataSpec) -> dict[str, dict[str, str]]:
    """Name data, network and groups by content."""
    import hashlib

    from debugnet.data.loading import load_dataset
    from debugnet.stages.row_weights import file_reference

    splits = load_dataset(spec)
    digest = hashlib.sha256("".join(splits.fingerprint(name) for name in splits.splits).encode()).hexdigest()
    inputs = {"data": {"kind": "data", "path": _absolute(options.data), "digest": digest}}
    inputs["network"] = {"kind": "network", "path": options.network, "digest": _network_digest(options)}
    if options.groups is not None:
        inputs["groups"] = file_reference(options.groups)
    return inputs


def _absolute(place: str) -> str:
    """Where an existing file lies, so that select finds it from any folder; a name stays."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


def _network_digest(options: TrainSparse) -> str:
    import hashlib

    from debugnet.backbones.identity import network_digest
    from debugnet.backbones.spec import BackboneSpec

    name = options.network
    if options.weights is not None and name.startswith("mlp:"):
        raise UsageError(f"--weights {options.weights}: an mlp begins untrained; drop it")
    if options.weights is None and name.startswith(("mlp:", "cifar_resnet")):
        return hashlib.sha256(name.encode()).hexdigest()
    spec = BackboneSpec(name, weights=options.weights)
    if spec.entry == "hugging-face":
        raise UsageError(
            f"--network {name}: give mlp:WIDTHS, cifar_resnetNN, python:package.module:factory or a debugnet folder"
        )
    return network_digest(spec)


def _make(options: TrainSparse, spec: DataSpec, output: Path, inputs: dict[str, dict[str, str]], force: bool) -> None:
    import time

    from debugnet.artifacts.atomic import make_parent
    from debugnet.artifacts.bundle import BundleWriter, write_json
    from debugnet.artifacts.canonical import jsonable
    from debugnet.stages.sparse_data import load_sparse_data, network_factory
    from debugnet.stages.sparse_export import describe_network, export_network

    started = time.monotonic()
    with _clear_out_of_memory(options, output):
        data = load_sparse_data(options, spec)
        make_network = network_factory(options, data)
        if options.method == "spred":
            from debugnet.stages.sparse_weights import prepare
        else:
            from debugnet.stages.sparse_units import prepare
        train = prepare(options, data, make_network)  # first: what is refused leaves nothing behind
        make_parent(output)
        provenance = collect("sparse", options, inputs, seed=options.seed)
        with BundleWriter(output, provenance, force=force) as writer:
            found = _train(train, writer)
            found |= {"task": data.task, "family": data.family, "class_names": data.class_names}
            found |= {"network": describe_network(options, data), "standardization": data.standardization}
            if found["network"] is not None:
                export_network(writer.folder, jsonable(found), found["summary"]["chosen"], writer.folder)
                found["text"] += f"\nthe chain after it: debugnet select {output} --drop 5%"
            write_json(writer.folder / RESULT, found)
            device, seconds = data.batches["train"].device, time.monotonic() - started
            writer.finish(collect("sparse", options, inputs, seed=options.seed, device=device, seconds=seconds))


@contextlib.contextmanager
def _clear_out_of_memory(options: TrainSparse, output: Path) -> Iterator[None]:
    """Say what helps where the device or the machine has no more memory; what was finished stays whole."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        where = "the device" if isinstance(error, torch.OutOfMemoryError) else "the machine"
        begun = output.with_name(f"{output.name}.partial")
        way_out = f" (and --force: {begun} was begun with this one)" if begun.exists() else ""
        raise DeviceError(
            f"out of memory on {where} with --batch-size {options.batch_size}: a smaller one{way_out}, or --limit"
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether it is torch's or Python's way to say that memory is at its end (on the CPU torch has no class for it)."""
    import torch

    said = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def _train(train: Callable[[BundleWriter], dict[str, Any]], writer: BundleWriter) -> dict[str, Any]:
    """Train; a run that ended without a result leaves no partial folder in the way of other options.

    Only one that ran out of memory may have got somewhere: its folder stays if there is anything in it.
    """
    try:
        return train(writer)
    except (NotConverged, UsageError):
        writer.discard()
        raise
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error) and not writer.records and not (writer.folder / "path.safetensors").exists():
            writer.discard()
        raise
