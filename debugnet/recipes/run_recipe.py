"""Options of ``debugnet run``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from debugnet.recipes.fields import argument, option


@dataclass(frozen=True)
class RunRecipe:
    """Run all stages of a recipe into one folder.

    Run again, it goes on at the first stage whose inputs or options have changed, and says
    which stages it reused.  The folder holds every artefact, under the name that the single
    command would give it, and run.json with the figures of the final table.

    In a recipe, ``${NAME}`` stands for an environment variable and ``${NAME:-default}`` for one
    that may be missing.

    Examples
    --------
    debugnet run configs/demo_digits.yaml
    debugnet run configs/demo_digits.yaml -o runs/loose --set select.drop=10%
    debugnet run configs/imagenette_resnet50.yaml --check
    """

    recipe: Path = argument("The recipe, a YAML file; configs/ has many.")
    output: Path | None = option(
        None, "Run folder; default runs/<name of the recipe>.", flags=("-o", "--output"), in_key=False
    )
    overrides: tuple[str, ...] = option(
        (), "Replace an option of the recipe; may be repeated.", flags=("--set",), metavar="STAGE.OPTION=VALUE",
        multiple=True,
    )  # fmt: skip
    until: str | None = option(None, "Stop after this stage.", metavar="STAGE", in_key=False)
    check: bool = option(False, "Check the recipe and show what would run, without running it.", in_key=False)
