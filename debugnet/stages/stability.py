"""``debugnet stability``: how often each weight of a head is selected when the data are drawn again."""

from __future__ import annotations

import functools
import operator
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import UsageError
from debugnet.progress import track
from debugnet.recipes.stability import Stability
from debugnet.stages.inputs import find_input
from debugnet.stages.result import Result

if TYPE_CHECKING:
    import numpy as np

    from debugnet.analysis.stability import SelectionShares
    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.heads import LinearHead

#: Lambdas above the head's own from which each resample's fit comes down, as multiples.
_WARM_START = (8.0, 4.0, 2.0, 1.0)
_ROWS_SHOWN = 12


def run(options: Stability, *, force: bool = False) -> Result:
    """Write ``stability/``: stability.json, shares.npz ((K, d) selection shares, all and by mix), a histogram.

    Raises
    ------
    UsageError
        The head does not say its point on a path.
    """
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
    }
    output = options.output or Path(options.head).parent / "stability"
    if check_output(output, "stability", options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "stability.json")
        return Result(output, report["summary"], True, _describe(report))
    import numpy as np

    from debugnet.analysis.stability import rank_unstable
    from debugnet.artifacts.bundle import write_bundle, write_json
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head

    started = time.monotonic()
    head, store = load_head(options.head), load_features(inputs["features"]["path"])
    missing = [key for key in ("lam", "l1_ratio", "penalty") if head.meta.get(key) is None]
    if missing:
        why = "it was not selected from a path of layers (fit-path)"
        raise UsageError(f"{options.head} does not say its {', '.join(missing)}: {why}")
    if options.bootstrap < max(2, len(options.l1_ratios)):
        raise UsageError(f"--bootstrap {options.bootstrap} is too few; draw 2 resamples or more, and one for each mix")
    by_mix = _count(head, store, options)
    shares = functools.reduce(operator.add, by_mix.values())
    report = _report(head, shares, rank_unstable(shares, head.support, head.output_names, by_mix), options)
    provenance = collect("stability", options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "stability.json", report)
        parts: dict[str, Any] = {f"share_l1_{mix:g}": part.share for mix, part in by_mix.items()}
        np.savez_compressed(folder / "shares.npz", share=shares.share, sign_agreement=shares.sign_agreement, **parts)
        _draw(folder, shares.share[head.support])
    return Result(output, report["summary"], False, _describe(report))


def _count(head: LinearHead, store: FeatureStore, options: Stability) -> dict[float, SelectionShares]:
    """Solve the head's point on each resample; selection shares by penalty mix."""
    import numpy as np

    from debugnet import glm
    from debugnet.analysis.stability import bootstrap_weights, count_selections
    from debugnet.stages.inputs import usable_rows

    X, y = usable_rows(store.split("train"))
    lam = float(head.meta["lam"])
    mixes = options.l1_ratios or (float(head.meta["l1_ratio"]),)
    counted: dict[float, SelectionShares] = {}
    for i in track(range(options.bootstrap), total=options.bootstrap, label="resamples", unit="fit"):
        mix = mixes[i % len(mixes)]
        path = glm.fit_path(
            X, y, family=head.family, penalty=head.meta["penalty"], l1_ratio=mix,
            lambdas=[lam * factor for factor in _WARM_START], tol=options.tol,
            sample_weight=bootstrap_weights(y, np.random.default_rng([options.seed, i])), device=options.device,
            seed=options.seed,
        )  # fmt: skip
        one = count_selections([path.weight(len(path) - 1)])
        counted[mix] = counted[mix] + one if mix in counted else one
    return counted


def _report(head: LinearHead, shares: Any, ranked: list[dict[str, Any]], options: Stability) -> dict[str, Any]:
    import numpy as np

    chosen = shares.share[head.support]
    outside = np.where(head.support, 0.0, shares.share)
    rivals = np.argsort(-outside, axis=None, kind="stable")[:50]
    names = head.output_names
    report = {
        "resamples": shares.n,
        "l1_ratios": list(options.l1_ratios) or [head.meta["l1_ratio"]],
        "lam": head.meta["lam"],
        "weights": ranked,
        "left_out": [
            {"output": names[k], "feature": int(j), "share": float(outside[k, j])}
            for k, j in zip(*np.unravel_index(rivals, outside.shape), strict=True)
            if outside[k, j] > 0
        ],
        "median_share": float(np.median(chosen)) if len(chosen) else None,
        "below_half": int((chosen < 0.5).sum()),
    }
    report["summary"] = {key: report[key] for key in ("resamples", "median_share", "below_half")} | {
        "weights": len(ranked)
    }
    return report


def _draw(folder: Path, shares: np.ndarray) -> None:
    if not len(shares):
        return
    from debugnet.report.debugging_figures import plot_selection_shares
    from debugnet.report.figures import drawing

    with drawing(folder, "selection_shares", 5.6, 3.6) as figure:
        axes = figure.subplots()
        plot_selection_shares(axes, shares)
        axes.set_title("How often the head's weights are selected again")


def _describe(report: dict[str, Any]) -> str:
    if report["median_share"] is None:
        return "the head uses no feature: nothing to select again"
    lines = [
        f"{len(report['weights'])} weights, {report['resamples']} resamples: selected in a median of "
        f"{report['median_share']:.0%}; {report['below_half']} in fewer than half",
        "least stable:",
    ]
    for row in report["weights"][:_ROWS_SHOWN]:
        low, high = row["interval"]
        mixes = ", ".join(f"{share:.0%} at l1_ratio {mix}" for mix, share in row["by_l1_ratio"].items())
        apart = f"; {mixes}" if len(row["by_l1_ratio"]) > 1 else ""
        lines.append(f"  {row['output']:>20} / {row['feature']:<6} {row['share']:.0%} [{low:.0%}, {high:.0%}]{apart}")
    rivals = [row for row in report["left_out"] if row["share"] > 0.5]
    if rivals:
        lines.append(f"{len(rivals)} weights that the head lacks are selected in more than half of the resamples")
    return "\n".join(lines)
