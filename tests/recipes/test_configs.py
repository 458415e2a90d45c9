"""Every recipe under configs/, however deep, is valid and says what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from debugnet.recipes.reading import read_recipe

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def test_there_are_configs():
    assert {"demo_digits", "demo_reviews", "imagenette_resnet50", "cifar10_resnet56", "sst2_minilm", "sst2_minilm_cls",
            "jigsaw_minilm"} <= {path.stem for path in CONFIGS}  # fmt: skip
    assert {path.stem for path in CONFIGS if path.parent.name == "paper"} >= {
        "imagenet_resnet50", "imagenet_robust_resnet50", "places10_resnet50", "sst_bert", "toxic_bert", "debiased_bert",
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config(path):
    sections = read_recipe(path, Path("runs") / path.stem, environment={})
    stages = [section.stage for section in sections]
    assert stages.index("extract") < stages.index("fit-path") < stages.index("select") < stages.index("analyze")
    header = re.match(r"(#[^\n]*\n)+", path.read_text()).group(0)
    for entry in ("Purpose", "Command", "Expected"):
        assert re.search(rf"^# {entry} +\S", header, re.MULTILINE), f"its header lacks {entry}"
    assert f"debugnet run {path.relative_to(ROOT)}" in header
    assert "MEASURE" not in header
