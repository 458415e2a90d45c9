"""Which device a network runs on."""

from __future__ import annotations

import torch

from debugnet.errors import DeviceError, UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Turn "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1" or "mps" into a device.

    Raises
    ------
    DeviceError
        If the machine has no such device.
    UsageError
        If the text names no device at all.
    """
    if str(name) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device '{name}': give auto, cpu, cuda, cuda:1 …") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"no device '{name}': this machine has {torch.cuda.device_count()} GPUs; try --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"no device '{name}' on this machine; try --device cpu")
    return device


def describe_device(device: torch.device) -> str:
    """Name a device for people: "cpu", "cuda:0 (NVIDIA H200)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
