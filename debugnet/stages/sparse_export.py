"""Networks that ``train-sparse`` leaves behind for others to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from debugnet.sparse_training.shrink import shrink, widths


def export_small(network: nn.Module, samples: Tensor, stem: Path) -> dict[str, Any]:
    """Write the physically smaller network and measure that it gives the same outputs.

    Parameters
    ----------
    network : nn.Module
        A chain of layers (:mod:`debugnet.sparse_training.shrink`); not modified.
    samples : Tensor (n, *shape)
        On which the outputs are compared.
    stem : Path
        ``.safetensors`` and ``.txt`` are added to it.

    Returns
    -------
    dict
        ``widths`` of its layers, ``n_weights``, ``largest_output_difference``.
    """
    device = next(network.parameters()).device
    network.cpu().eval()
    small, x = shrink(network), samples.cpu()
    with torch.no_grad():
        difference = float((small(x) - network(x)).abs().max())
    network.to(device)
    save_file(small.state_dict(), stem.with_name(f"{stem.name}.safetensors"))
    stem.with_name(f"{stem.name}.txt").write_text(f"{small}\n", encoding="utf-8")
    count = sum(p.numel() for p in small.parameters())
    return {"widths": widths(small), "n_weights": count, "largest_output_difference": difference}
