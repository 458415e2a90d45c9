"""The expensive part of a run: perturbing samples, and checking explanations by deletion.

Every sample is one record in the bundle, keyed by its content, the network and the options, so
that an interrupted run goes on where it stopped and another choice of features finds the forward
passes done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from debugnet.artifacts.bundle import BundleWriter, load_arrays
from debugnet.explain.forward import NotExplainable, sample_seed
from debugnet.explain.lime_image import ImageExplanation, ImagePerturber, explain_image
from debugnet.explain.lime_text import TextExplanation, explain_texts
from debugnet.explain.plan import Plan, Unit
from debugnet.explain.subject import Subject, content_key
from debugnet.explain.superpixels import fill_image
from debugnet.explain.surrogate import Moments
from debugnet.explain.tokenization import Words
from debugnet.explain.trust import deletion_masks, judge

GROUP = 8
"""Texts that share batches."""
_REMOVED = 3


@dataclass(frozen=True)
class Perturbation:
    """The options of LIME that decide what is computed for a sample."""

    n_samples: int = 1000
    segmentation: str = "quickshift"
    fill: str = "black"
    mask: str = "delete"
    lime_compat: bool = False
    seed: int = 0
    n_random: int = 10


class Neighbourhoods:
    """Perturbs the planned samples and keeps what it finds in the bundle.

    Parameters
    ----------
    subject : Subject
    plan : Plan
    options : Perturbation
    writer : BundleWriter
    earlier : (Path, records) or None
        A finished bundle whose records are taken over where their keys agree.
    """

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        options: Perturbation,
        writer: BundleWriter,
        earlier: tuple[Path, Mapping[str, Any]] | None = None,
    ) -> None:
        self.subject, self.plan, self.options, self.writer, self.earlier = subject, plan, options, writer, earlier
        self.keys: dict[int, str] = {}

    def key(self, row: int, content: bytes) -> str:
        """Content key of a row's neighbourhood."""
        options = {k: v for k, v in asdict(self.options).items() if k != "n_random"}
        options["id"] = self.subject.sample_id(row)  # the seed derives from it
        for name in ("mask",) if self.subject.modality == "image" else ("segmentation", "fill"):
            del options[name]
        if self.subject.modality == "text":
            options["subsets"] = "stratified, less interactions"  # what earlier versions found is not taken over
        return content_key("lime", self.subject.backbone.fingerprint, content, options)

    def is_there(self, key: str) -> bool:
        """Whether a record is in the bundle, taking it over from the earlier one if it can."""
        if key not in self.writer and self._was_there(key):
            assert self.earlier is not None
            path, records = self.earlier
            with_arrays = key.startswith("lime:") and "skipped" not in records[key]
            self.writer.add(key, records[key], load_arrays(path, key) if with_arrays else None)
        return key in self.writer

    def _was_there(self, key: str) -> bool:
        return self.earlier is not None and key in self.earlier[1]

    def _to_compute(self, keys: Mapping[int, str]) -> list[int]:
        """Return the rows of a group to compute: none, or all that an earlier bundle does not give.

        Rows that an interrupted run finished are computed again beside those it did not: the
        same batches give the same bytes.
        """
        if all([self.is_there(key) for key in keys.values()]):
            return []
        return [row for row, key in keys.items() if not self._was_there(key)]

    def perturb(self, on_sample: Callable[[int], None]) -> None:
        """Perturb every planned row that is not there yet; ``on_sample`` is called with the number done."""
        if self.subject.modality == "image":
            for row in self.plan.lime_rows:
                self._perturb_image(row)
                on_sample(1)
        else:
            rows = self.plan.lime_rows
            for start in range(0, len(rows), GROUP):
                self._perturb_texts(rows[start : start + GROUP])
                on_sample(len(rows[start : start + GROUP]))

    def _perturb_image(self, row: int) -> None:
        subject, options = self.subject, self.options
        try:
            pixels = subject.image(row)
        except NotExplainable as reason:
            self._skip(row, b"", reason)
            return
        key = self.keys[row] = self.key(row, pixels.tobytes())
        if self.is_there(key):
            return
        try:
            found = explain_image(
                pixels,
                subject.probe,
                n_samples=options.n_samples,
                segmentation=options.segmentation,
                fill=options.fill,
                seed=sample_seed(options.seed, subject.sample_id(row)),
                device=subject.device,
                lime_compat=options.lime_compat,
            )
        except NotExplainable as reason:
            self._skip(row, pixels.tobytes(), reason)
            return
        arrays = {
            "segments": found.segments.astype(np.uint16),
            "activation": found.activation,
            "changed": found.changed,
        }
        self.writer.add(key, {"sample_id": subject.sample_id(row)}, arrays | found.moments.arrays())

    def _perturb_texts(self, rows: Sequence[int]) -> None:
        subject, options = self.subject, self.options
        texts: dict[int, str] = {}
        for row in rows:
            try:
                texts[row] = subject.text(row)
            except NotExplainable as reason:
                self._skip(row, b"", reason)
                continue
            self.keys[row] = self.key(row, texts[row].encode("utf-8", "surrogatepass"))
        missing = self._to_compute({row: self.keys[row] for row in texts})
        found = explain_texts(
            [texts[row] for row in missing],
            subject.probe,
            [sample_seed(options.seed, subject.sample_id(row)) for row in missing],
            n_samples=options.n_samples,
            mask_token=subject.mask_token() if options.mask == "mask-token" else None,
            lime_compat=options.lime_compat,
        )
        for row, result in zip(missing, found, strict=True):
            if self.keys[row] in self.writer:
                continue
            if isinstance(result, NotExplainable):
                self._skip(row, texts[row].encode("utf-8", "surrogatepass"), result)
            else:
                value = {"sample_id": subject.sample_id(row), "text": texts[row], "enumerated": result.enumerated}
                value["truncated"] = value["sample_id"] in subject.truncated
                self.writer.add(self.keys[row], value, {"activation": result.activation} | result.moments.arrays())

    def _skip(self, row: int, content: bytes, reason: NotExplainable) -> None:
        key = self.keys[row] = self.key(row, content)
        if not self.is_there(key):
            self.writer.add(key, {"sample_id": self.subject.sample_id(row), "skipped": str(reason)})

    def explanation(self, row: int) -> ImageExplanation | TextExplanation | None:
        """Return what is known of a row, or None where it was skipped."""
        key = self.keys[row]
        value = self.writer.records[key]
        if "skipped" in value:
            return None
        arrays = load_arrays(self.writer.folder, key)
        moments = Moments.from_arrays(arrays)
        if self.subject.modality == "image":
            return ImageExplanation(
                arrays["segments"].astype(np.int32), arrays["activation"], moments, arrays["changed"]
            )
        compat = self.options.lime_compat
        words = Words.of(value["text"], as_lime=compat)
        return TextExplanation(words, arrays["activation"], moments, value["enumerated"], compat)

    def skipped(self) -> list[dict[str, Any]]:
        """The samples without explanation: id and reason, in the order of the rows."""
        values = [self.writer.records[key] for _, key in sorted(self.keys.items())]
        lost = [value for value in values if "skipped" in value]
        return [{"sample_id": v["sample_id"], "method": "lime", "reason": v["skipped"]} for v in lost]

    def check_key(self, row: int) -> str:
        """Content key of a row's deletion checks."""
        units = hashlib.sha256(repr((self.plan.pairs[row], self.options.n_random)).encode()).hexdigest()
        return f"deletion:{self.keys[row].removeprefix('lime:')}:{units[:16]}"

    def check(self, on_sample: Callable[[int], None]) -> None:
        """Delete the strongest parts of every prototype's explanations, and random ones beside them."""
        rows = list(self.plan.pairs)
        for start in range(0, len(rows), GROUP):
            group = rows[start : start + GROUP]
            explained = [row for row in group if "skipped" not in self.writer.records[self.keys[row]]]
            missing = self._to_compute({row: self.check_key(row) for row in explained})
            checks = [_Check(self, row, self.plan.pairs[row]) for row in missing]
            if self.subject.modality == "image":
                answers: Iterator[np.ndarray] = (check.ask_image() for check in checks)
            else:
                answers = self._ask_texts(checks)
            for check, answer in zip(checks, answers, strict=True):
                if self.check_key(check.row) not in self.writer:
                    verdicts = [asdict(trust) for trust in check.verdicts(answer)]
                    self.writer.add(self.check_key(check.row), {"verdicts": verdicts})
            on_sample(len(group))

    def _ask_texts(self, checks: Sequence[_Check]) -> Iterator[np.ndarray]:
        mask = self.subject.mask_token() if self.options.mask == "mask-token" else None
        texts = [check.texts(mask) for check in checks]
        answers = self.subject.probe.texts([text for some in texts for text in some]) if texts else np.empty((0, 0))
        start = 0
        for some in texts:
            yield answers[start : start + len(some)]
            start += len(some)

    def verdicts(self, row: int) -> dict[Unit, dict[str, Any]]:
        """Return the deletion checks of a row by (feature, side); empty where there are none."""
        value = self.writer.records.get(self.check_key(row)) if row in self.plan.pairs else None
        return {} if value is None else dict(zip(self.plan.pairs[row], value["verdicts"], strict=True))


class _Check:
    """The deletion checks of one sample, for all the features it is a prototype of."""

    def __init__(self, work: Neighbourhoods, row: int, units: Sequence[Unit]) -> None:
        self.work, self.row = work, row
        explanation = work.explanation(row)
        assert explanation is not None
        self.explanation = explanation
        self.features, self.sides = [j for j, _ in units], [side for _, side in units]
        self.surrogate = self.explanation.fit(np.array(self.features))
        self.seed = sample_seed(work.options.seed, f"deletion {work.subject.sample_id(row)}")
        self.switches = deletion_masks(
            self.surrogate.effect, self.sides, n_removed=_REMOVED, n_random=work.options.n_random, seed=self.seed
        )

    def ask_image(self) -> np.ndarray:
        subject, options = self.work.subject, self.work.options
        assert isinstance(self.explanation, ImageExplanation)
        pixels, segments = subject.image(self.row), self.explanation.segments
        seed = sample_seed(options.seed, subject.sample_id(self.row))
        filled = fill_image(pixels, segments, options.fill, seed=seed)
        perturber = ImagePerturber(pixels, segments, filled, subject.device)
        return subject.probe.collect(lambda a, b: perturber.compose(self.switches[a:b]), len(self.switches))

    def texts(self, mask_token: str | None) -> list[str]:
        assert isinstance(self.explanation, TextExplanation)
        return self.explanation.words.perturbed(self.switches, mask_token)

    def verdicts(self, answers: np.ndarray) -> list[Any]:
        change = (answers - self.explanation.activation)[:, self.features]
        return judge(self.sides, self.surrogate, self.switches, change)
