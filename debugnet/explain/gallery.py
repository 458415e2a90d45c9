"""Records and pictures of every feature and side, made from what the neighbourhoods found."""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from debugnet.artifacts.atomic import atomic_file
from debugnet.artifacts.bundle import BundleWriter, write_json
from debugnet.artifacts.explanation_bundle import record_key
from debugnet.explain import feature_visualization
from debugnet.explain.forward import NotExplainable
from debugnet.explain.lime_image import ImageExplanation
from debugnet.explain.lime_text import TextExplanation
from debugnet.explain.neighbourhoods import Neighbourhoods
from debugnet.explain.overlay import explanation_panel
from debugnet.explain.plan import Plan, Unit
from debugnet.explain.prototypes import contact_sheet
from debugnet.explain.sentence_panel import sentence_panel
from debugnet.explain.subject import Subject
from debugnet.explain.trust import fit_flags
from debugnet.explain.word_cloud import draw_word_cloud
from debugnet.explain.word_scores import WordScore, WordTally, cloud_words

_VISUALIZED_AT_ONCE = 8
_UNCHANGED = 2 / 255  # mean difference, of 1, below which a part that is off looks as if it were on
_DOES = {"positive": "raises", "negative": "lowers"}
_EXTREME = {"positive": "highest", "negative": "lowest"}


class Gallery:
    """Writes the records and pictures of a bundle.

    Parameters
    ----------
    subject : Subject
    plan : Plan
    writer : BundleWriter
    names : dict of int to str
        Feature -> the classes that use it, for captions.
    doubts : sequence of str
        What speaks against every explanation of this network.
    font : Path, optional
        Tried first for words.
    """

    def __init__(
        self,
        subject: Subject,
        plan: Plan,
        writer: BundleWriter,
        names: dict[int, str],
        doubts: Sequence[str],
        font: Path | None,
    ) -> None:
        self.subject, self.plan, self.writer, self.names = subject, plan, writer, names
        self.doubts, self.font = list(doubts), font

    def _picture(self, method: str, unit: Unit, suffix: str = "", number: int | None = None) -> Path:
        name = f"f{unit[0]:05d}_{unit[1]}" + ("" if number is None else f"_{number}") + suffix
        path = self.writer.folder / method / name
        path.parent.mkdir(exist_ok=True)
        return path

    def _add(self, method: str, unit: Unit, records: Sequence[dict[str, Any]], pictures: Sequence[Path]) -> None:
        names = [path.relative_to(self.writer.folder).as_posix() for path in pictures]
        self.writer.add(record_key(method, *unit), {"records": list(records), "pictures": names})

    def _sample(self, unit: Unit, row: int) -> dict[str, Any]:
        subject = self.subject
        return {
            "sample_id": subject.sample_id(row),
            "row": row,
            "activation": float(self.plan.column(unit[0])[row]),
            "classes": subject.label(row),
        }

    def _title(self, unit: Unit, what: str) -> str:
        doubt = " [the network looks untrained]" if self.doubts else ""
        return f"feature {unit[0]}{self.names.get(unit[0], '')}: {what}{doubt}"

    def prototypes(self, unit: Unit) -> None:
        """Write the extreme samples of one side: a contact sheet, or the sentences in the record."""
        if record_key("prototypes", *unit) in self.writer:
            return
        records, images, captions, pictures = [], [], [], []
        for row in self.plan.prototypes[unit]:
            record = self._sample(unit, int(row))
            try:
                if self.subject.modality == "image":
                    images.append(self.subject.image(int(row)))
                    captions.append((f"{record['activation']:+.2f} sd", record["classes"]))
                elif self.subject.modality == "text":
                    record["text"] = self.subject.text(int(row))
            except NotExplainable as reason:
                record["skipped"] = str(reason)
            records.append(record)
        if images:
            path = self._picture("prototypes", unit, ".png")
            title = self._title(unit, f"{_EXTREME[unit[1]]} activations")
            _save(contact_sheet(images, captions, title), path)
            pictures = [path]
        self._add("prototypes", unit, records, pictures)

    def lime(self, unit: Unit, work: Neighbourhoods) -> None:
        """Write the explanations of one side's prototypes, all on one scale."""
        if record_key("lime", *unit) in self.writer:
            return
        rows = [int(row) for row in self.plan.prototypes[unit]]
        found = [(row, e) for row in rows if (e := work.explanation(row)) is not None]
        fits = [e.fit(np.array([unit[0]])) for _, e in found]
        limit = max((float(np.nanmax(np.abs(fit.effect))) for fit in fits), default=0.0)
        records, sentences, pictures = [], [], []
        for number, ((row, explanation), fit) in enumerate(zip(found, fits, strict=True), start=1):
            effect, error = fit.effect[:, 0], fit.standard_error[:, 0]
            record = self._sample(unit, row) | {"effects": effect.tolist(), "standard_errors": error.tolist()}
            trust = {name: float(getattr(fit, name)[0]) for name in ("r2", "adjusted_r2", "split_half")}
            record |= trust | {"flags": list(fit_flags(trust["adjusted_r2"], trust["split_half"]))}
            record |= work.verdicts(row).get(unit, {})
            record["flags"] = [*record["flags"], *self.doubts]
            record |= {"stable": not record["flags"], "sample_key": work.keys[row], "limit": limit}
            records.append(record)
            if isinstance(explanation, ImageExplanation):
                record["parts_unchanged"] = int((explanation.changed < _UNCHANGED).sum())
                path = self._picture("lime", unit, ".png", number)
                self._draw_panel(path, unit, row, explanation, record, limit)
                pictures.append(path)
            else:
                record["parts"] = list(explanation.words.vocabulary)
                note = f"{record['activation']:+.2f} sd, {record['classes']}; {_evidence(record)}"
                sentences.append((explanation.words, effect, note, _verdict(record)))
        if sentences:
            path = self._picture("lime", unit, ".png")
            _save(sentence_panel(sentences, self._title(unit, _lime_title(unit[1])), limit=limit, font=self.font), path)
            pictures = [path]
        self._add("lime", unit, records, pictures)

    def _draw_panel(
        self, path: Path, unit: Unit, row: int, explanation: ImageExplanation, record: dict[str, Any], limit: float
    ) -> None:
        title = self._title(unit, f"{record['classes']}, {record['activation']:+.2f} sd")
        panel = explanation_panel(
            self.subject.image(row),
            explanation.segments,
            np.array(record["effects"]),
            unit[1],
            limit=limit,
            title=title,
            notes=(*_evidence(record).split("; ", 1), _verdict(record)),
        )
        _save(panel, path)

    def words(
        self,
        work: Neighbourhoods,
        *,
        min_count: int,
        shrinkage: float,
        clouds: bool,
        on_row: Callable[[], None],
    ) -> None:
        """Write the word table of every feature, and its clouds."""
        units = [unit for unit in self.plan.units if record_key("words", *unit) not in self.writer]
        if not units:
            return
        features = self.plan.features  # all, whatever is left to write: a resumed run gets the same bits
        tally, r2, agreement = WordTally(len(features)), [], []
        for row in self.plan.word_rows:
            explanation = work.explanation(int(row))
            on_row()
            if isinstance(explanation, TextExplanation):
                fit = explanation.fit(np.array(features))
                tally.add(explanation.words.vocabulary, fit.effect)
                r2.append(fit.r2)
                agreement.append(fit.split_half)
        scores = tally.scores(min_count=min_count, shrinkage=shrinkage)
        for j, feature in enumerate(features):
            evidence = {"median_r2": _median(r2, j), "median_split_half": _median(agreement, j)}
            facts = {"feature": feature, "n_texts": tally.n_sentences, "min_count": min_count, "shrinkage": shrinkage}
            self._write_table(feature, facts | evidence | {"flags": self.doubts}, scores[j])
            for unit in [unit for unit in units if unit[0] == feature]:
                self._write_cloud(unit, scores[j], clouds)

    def _write_table(self, feature: int, facts: dict[str, Any], scores: list[WordScore]) -> None:
        path = self.writer.folder / "words" / f"f{feature:05d}.json"
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            write_json(temporary, facts | {"words": [score.as_dict() for score in scores]})
        table = io.StringIO()
        columns = ["word", "mean", "shrunk", "n", "low", "high"]
        rows = csv.DictWriter(table, columns, lineterminator="\n")
        rows.writeheader()
        rows.writerows(score.as_dict() for score in scores)
        with atomic_file(path.with_suffix(".csv")) as temporary:
            temporary.write_text(table.getvalue(), encoding="utf-8", errors="surrogateescape")

    def _write_cloud(self, unit: Unit, scores: list[WordScore], clouds: bool) -> None:
        chosen, pictures = cloud_words(scores, unit[1]), []
        if clouds:
            path = self._picture("words", unit)
            title = self._title(unit, f"words that {_DOES[unit[1]][:-1]} it")
            largest = max((abs(score.shrunk) for score in scores), default=None)
            draw_word_cloud(chosen, unit[1], title, path, largest=largest, font=self.font)
            pictures = [path.with_suffix(".png"), path.with_suffix(".svg")]
        self._add("words", unit, [score.as_dict() for score in chosen], pictures)

    def visualizations(self, *, steps: int, parametrization: str, seed: int, on_step: Callable[[int], None]) -> None:
        """Optimize images for every feature and side, a fixed number at a time."""
        for start in range(0, len(self.plan.units), _VISUALIZED_AT_ONCE):
            units = self.plan.units[start : start + _VISUALIZED_AT_ONCE]
            if all(record_key("visualization", *unit) in self.writer for unit in units):
                on_step(steps * len(units))
                continue
            n_units = len(units)
            images = feature_visualization.visualize_features(
                self.subject.features,
                units,
                side=self.subject.side,
                steps=steps,
                parametrization=parametrization,
                seed=seed,
                device=self.subject.device,
                on_step=functools.partial(on_step, n_units),
            )
            for unit, found in zip(units, images, strict=True):
                if record_key("visualization", *unit) not in self.writer:
                    self._write_visualization(unit, found, steps, parametrization)

    def _write_visualization(
        self, unit: Unit, found: feature_visualization.Visualization, steps: int, parametrization: str
    ) -> None:
        found = feature_visualization.compare_with_data(found, self.plan.column(unit[0]))
        record = {
            "activation": found.activation,
            "percentile": found.percentile,
            "failed": found.failed,
            "steps": steps,
            "parametrization": parametrization,
        }
        pictures = []
        if found.failed is None:
            path = self._picture("visualization", unit, ".png")
            _save(Image.fromarray(found.image), path)
            pictures = [path]
        self._add("visualization", unit, [record], pictures)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def _median(values: Sequence[np.ndarray], j: int) -> float | None:
    column = np.array([v[j] for v in values])
    return float(np.nanmedian(column)) if np.isfinite(column).any() else None


def _lime_title(side: str) -> str:
    return f"what {_DOES[side]} it, and what does not, in its {_EXTREME[side]} samples"


def _evidence(record: dict[str, Any]) -> str:
    text = f"R2 {_number(record['r2'], '.2f')}, two halves agree {_number(record['split_half'], '.2f')}"
    if record.get("parts_unchanged"):
        text += f", {record['parts_unchanged']} of {len(record['effects'])} parts look the same when off"
    if "measured" in record:
        text += (
            f"; without the {record['n_removed']} strongest: {record['measured']:+.2f} sd "
            f"(predicted {record['predicted']:+.2f}, random {_number(record['random_mean'])})"
        )
    return text


def _number(value: float | None, form: str = "+.2f") -> str:
    """``n/a`` where there is none: a text of one word has no other to delete, a feature that does not react no fit."""
    return "n/a" if value is None or value != value else format(value, form)


def _verdict(record: dict[str, Any]) -> str:
    return "unstable: " + "; ".join(record["flags"]) if record["flags"] else "passed every check"
