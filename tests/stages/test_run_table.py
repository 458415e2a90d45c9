"""The table that ends ``debugnet run``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from debugnet.stages.result import Result
from debugnet.stages.run_table import final_table


def layer(val: float, test: float | None, size: float = 2.0) -> dict:
    test_metrics = None if test is None else {"accuracy": test}
    return {"metrics": {"val": {"accuracy": val}, "test": test_metrics}, "mean_features_per_class": size}


@pytest.mark.parametrize("test", [0.75, None])
def test_a_store_without_a_test_split_has_no_such_column(tmp_path: Path, test: float | None) -> None:
    own = {"val": {"accuracy": 0.9}, "test": None if test is None else {"accuracy": test}}
    baselines = {"network_head": own, "dense": layer(0.9, test), "best": layer(0.95, test)}
    chosen = layer(0.85, test) | {"metric": "accuracy", "baselines": baselines}
    result = Result(tmp_path, chosen, False, "")
    stage = SimpleNamespace(stage="select", result=result, seconds=1.0, peak_memory=1 << 20)
    table = final_table([stage])
    head, _, own_row, *_, selected = table.partition("\n\n")[0].strip("\n").splitlines()
    assert head.split() == ["accuracy", "val", *(["test"] if test else []), "features", "per", "class"]
    assert own_row.split()[-1] == "-" and selected.split() == ["selected", "85.0%", *(["75.0%"] if test else []), "2.0"]
