"""Pictures and texts for a report, from the data that the features were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debugnet.errors import DebugnetError
from debugnet.progress import log

if TYPE_CHECKING:
    import numpy as np

    from debugnet.artifacts.feature_store import FeatureStore
    from debugnet.explain.subject import Subject


class StoredSamples:
    """Samples as the network sees them; none where the data or the network is gone.

    The network is loaded for its preprocessing alone: superpixels lie on the pixels it gives.
    """

    def __init__(self, store: FeatureStore, device: str) -> None:
        self._store, self._device = store, device
        self._subjects: dict[str, Subject | None] = {}
        self._shown: dict[tuple[str, int], np.ndarray | str | None] = {}
        self.missing = ""

    def show(self, split: str, row: int) -> np.ndarray | str | None:
        """Return pixels (H, W, 3) uint8, a text, or None where there is nothing to show."""
        if (split, row) not in self._shown:
            self._shown[split, row] = self._read(split, row)
        return self._shown[split, row]

    def _read(self, split: str, row: int) -> np.ndarray | str | None:
        subject = self._subject(split)
        if subject is None:
            return None
        from debugnet.explain.forward import NotExplainable

        try:
            if subject.modality == "image":
                return subject.image(row)
            return subject.text(row) if subject.modality == "text" else None
        except NotExplainable:
            return None

    def _subject(self, split: str) -> Subject | None:
        if split not in self._subjects:
            self._subjects[split] = self._load(split) if not self.missing else None
        return self._subjects[split]

    def _load(self, split: str) -> Subject | None:
        from debugnet.stages.subject import load_subject

        if "backbone" not in self._store.config or "data" not in self._store.config:
            self.missing = "the features do not say which data they were made from"
            return None
        try:
            return load_subject(self._store, split, device=self._device)
        except (DebugnetError, ImportError) as error:
            self.missing = str(error)
            log(f"no pictures or texts of the samples: {error}", level="warning")
            return None
