"""What every kind of network source hands over, before its features are tapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from debugnet.backbones.preprocessing import ImagePreprocessing


@dataclass(frozen=True)
class NetworkSource:
    """A network with what turns samples into its input.

    Attributes
    ----------
    network : Module
    modality : {"image", "text", "tensor"}
    class_names : sequence of str, optional
        In the order of the network's outputs; None where nobody knows them.
    preprocessing : ImagePreprocessing, optional
        For images.
    tokenizer : object, optional
        A Hugging Face tokenizer, for text.
    max_length : int, optional
        Longest text in tokens.
    is_encoder : bool
        True when the network ends in hidden states, not in logits.
    """

    network: nn.Module
    modality: str
    class_names: Sequence[str] | None = None
    preprocessing: ImagePreprocessing | None = None
    tokenizer: Any = None
    max_length: int | None = None
    is_encoder: bool = False
