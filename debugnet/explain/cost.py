"""What an explanation run will cost, told before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from debugnet.explain.forward import NotExplainable
from debugnet.explain.neighbourhoods import Neighbourhoods, Perturbation
from debugnet.explain.plan import Plan
from debugnet.explain.subject import Subject
from debugnet.explain.tokenization import Words

_EXHAUSTIVE_WORDS = 10
_GRADIENT_COST = 3.0  # forward and backward, in forward passes


def estimate(
    subject: Subject, plan: Plan, options: Perturbation, found: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    """Count what is left to do, and time one batch of it.

    Parameters
    ----------
    subject, plan, options
        See :class:`debugnet.explain.neighbourhoods.Neighbourhoods`.
    found : mapping
        Records that are there already, by key.
    steps : int
        Gradient steps per visualized image.

    Returns
    -------
    dict
        ``forward_passes`` is an upper bound: texts that repeat themselves are passed once.
    """
    keys = Neighbourhoods(subject, plan, options, writer=None)  # type: ignore[arg-type]  # keys only
    there = forwards = 0
    example: Any = None
    for row in plan.lime_rows:
        try:
            content: Any = subject.image(row) if subject.modality == "image" else subject.text(row)
        except NotExplainable:
            continue
        raw = content.tobytes() if subject.modality == "image" else content.encode("utf-8", "surrogatepass")
        example = content if example is None else example
        if keys.key(row, raw) in found:
            there += 1
        else:
            forwards += _forwards_of(content, options)
    checked = plan.pairs if "lime" in plan.methods and options.n_random else {}
    forwards += sum(len(units) + options.n_random for units in checked.values())
    images = steps * len(plan.units) if "visualization" in plan.methods else 0
    rate = _seconds_per_forward(subject, example)
    return {
        "methods": list(plan.methods),
        "features": len(plan.features),
        "sides": len(plan.units),
        "samples": len(plan.lime_rows),
        "samples_there": there,
        "forward_passes": forwards,
        "gradient_steps": images,
        "seconds": rate * (forwards + _GRADIENT_COST * images),
    }


def _forwards_of(content: Any, options: Perturbation) -> int:
    if not isinstance(content, str):
        return options.n_samples
    n_words = len(Words.of(content, as_lime=options.lime_compat).vocabulary)
    exhaustive = n_words <= _EXHAUSTIVE_WORDS and not options.lime_compat
    return 2**n_words if exhaustive else min(options.n_samples, 2**n_words)


def _seconds_per_forward(subject: Subject, example: Any) -> float:
    """Time a batch, after a smaller one that warms up."""
    if subject.modality == "image":
        batch: Any = torch.rand(subject.probe.batch_size, 3, subject.side, subject.side).to(subject.device)
    elif isinstance(example, str):
        words = example.split()
        batch = [" ".join(words[: 1 + i % max(len(words), 1)]) for i in range(subject.probe.batch_size)]
    else:
        return 0.0
    subject.probe.collect(lambda start, stop: batch[start:stop], 2)
    started = time.perf_counter()
    subject.probe.collect(lambda start, stop: batch[start:stop], len(batch))
    return (time.perf_counter() - started) / len(batch)
