"""The pages of a study: what a task may show, put into static HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from debugnet.errors import UsageError
from debugnet.recipes.study_make import StudyMake

if TYPE_CHECKING:
    from debugnet.study.tasks import ShownFeature, Task

_QUESTIONS = {
    "simulation": (
        "Which sample fits these features best?",
        "A model looks for the features below; the longer the bar, the more a feature counts. "
        "Which of the samples would it find them in most?",
    ),
    "pairs": (
        "Do these two groups have a pattern in common?",
        "Look at both groups of samples. Is there something that appears in all of them, or nearly all?",
    ),
    "misclassification": (
        "Which of two features does this sample show?",
        "Two features are shown, each by what it stands for. Which of them do you find in the sample? "
        "If you find both, say which one fits better.",
    ),
}
_MATCHES = [
    ("A", "feature A only"),
    ("B", "feature B only"),
    ("both-A", "both, and A fits better"),
    ("both-B", "both, and B fits better"),
    ("neither", "neither"),
]
_PROTOTYPES, _WORDS = 3, 15


class Pages:
    """Renders tasks.

    Parameters
    ----------
    options : StudyMake
    inputs : dict
        References of the study's inputs.
    study : str
        Id of the study: answers are kept under it.
    """

    def __init__(self, options: StudyMake, inputs: dict[str, dict[str, str]], study: str) -> None:
        from debugnet.artifacts.explanation_bundle import load_explanations
        from debugnet.artifacts.feature_store import load_features
        from debugnet.artifacts.head_store import load_head
        from debugnet.stages.report_samples import StoredSamples

        self.options, self.study = options, study
        self.store, self.head = load_features(inputs["features"]["path"]), load_head(options.head)
        self.bundle = load_explanations(inputs["explanations"]["path"]) if "explanations" in inputs else None
        self.samples = StoredSamples(self.store, options.device)
        self.shown_by: Counter[str] = Counter()
        self._features: dict[int, dict[str, Any]] = {}
        self._places = {
            sample: (split, row)
            for split in self.store.splits
            for row, sample in enumerate(self.store.split(split).ids)
        }
        self._form_action = _form_action(options.submit_to)

    def write(self, folder: Path, tasks: Sequence[Task]) -> dict[str, int]:
        """Write one page per task and the index; returns how many features are shown by what."""
        files = [f"{task.id}.html" for task in tasks]
        for number, task in enumerate(tasks, start=1):
            following = files[number] if number < len(files) else "index.html"
            (folder / files[number - 1]).write_text(self._page(task, number, len(tasks), following), encoding="utf-8")
        index = [{"id": task.id, "file": file} for task, file in zip(tasks, files, strict=True)]
        values = {"tasks": index, "explanation": _QUESTIONS[self.options.kind][1], "kind": self.options.kind}
        (folder / "index.html").write_text(self._render("index", values), encoding="utf-8")
        return dict(self.shown_by)

    def _render(self, name: str, values: dict[str, Any]) -> str:
        from debugnet.report.html import render

        common = {"study": self.study, "title": self.options.title}
        scripts = ("store.js", f"{name}.js")
        return render(
            f"{name}.html", scripts, ("study.css",), common | values, package="debugnet.study",
            form_action=self._form_action,
        )  # fmt: skip

    def _page(self, task: Task, number: int, total: int, following: str) -> str:
        question, explanation = _QUESTIONS[task.kind]
        choices = {
            "simulation": [],
            "pairs": [("yes", "yes"), ("no", "no")],
            "misclassification": _MATCHES,
        }[task.kind]
        values = {
            "task": task.id, "number": number, "total": total, "next": following, "kind": task.kind,
            "question": question, "explanation": explanation, "submit_to": self.options.submit_to or "",
            "features": [self._feature(feature) for feature in task.features],
            "features_heading": "The features" if task.kind == "simulation" else "Two features",
            "groups": self._groups(task), "choices": choices,
            "choices_heading": "Is there a common pattern?" if task.kind == "pairs" else "Your answer",
        }  # fmt: skip
        return self._render("task", values)

    def _groups(self, task: Task) -> list[dict[str, Any]]:
        headings = {"simulation": ["The samples"], "pairs": ["Group 1", "Group 2"], "misclassification": ["The sample"]}
        groups = []
        for heading, ids in zip(headings[task.kind], task.samples, strict=True):
            shown = []
            for number, sample in enumerate(ids, start=1):
                option = task.options[number - 1] if task.kind == "simulation" else ""
                shown.append(self._sample(sample) | {"name": f"{heading}, sample {number}", "option": option})
            groups.append({"heading": heading, "samples": shown})
        return groups

    def _sample(self, sample: str) -> dict[str, Any]:
        found = self.samples.show(*self._places[sample]) if sample in self._places else None
        if isinstance(found, str):
            return {"picture": None, "text": found}
        return {"picture": None if found is None else _picture(found), "text": None}

    def _feature(self, feature: ShownFeature) -> dict[str, Any]:
        if feature.feature not in self._features:
            self._features[feature.feature] = self._stands_for(feature.feature)
            self.shown_by[self._features[feature.feature]["what"]] += 1
        return self._features[feature.feature] | {"name": feature.name, "importance": feature.importance}

    def _stands_for(self, feature: int) -> dict[str, Any]:
        """What stands for a feature: its visualization, its word clouds, or its strongest training samples."""
        empty: dict[str, Any] = {"pictures": [], "words": None, "texts": [], "what": "nothing"}
        bundle = self.bundle
        if bundle is not None and feature in bundle.features and "positive" in bundle.sides(feature):
            made = [p for p in bundle.pictures(feature, "positive", "visualization") if p.suffix == ".png"]
            if made:
                from PIL import Image

                with Image.open(made[0]) as image:
                    return empty | {"pictures": [_picture(image.convert("RGB"))], "what": "visualization"}
            if bundle.words(feature, "positive"):
                words = {side: self._cloud(feature, side) for side in bundle.sides(feature)}
                return empty | {"words": {"positive": [], "negative": []} | words, "what": "word clouds"}
        found = [self.samples.show("train", row) for row in self._strongest(feature)]
        pictures = [_picture(item) for item in found if item is not None and not isinstance(item, str)]
        texts = [item for item in found if isinstance(item, str)]
        what = "strongest training samples" if pictures or texts else "nothing"
        return empty | {"pictures": pictures, "texts": texts, "what": what}

    def _cloud(self, feature: int, side: str) -> list[dict[str, Any]]:
        assert self.bundle is not None
        records = self.bundle.records(feature, side, "words")[:_WORDS]
        top = max((abs(r["mean"]) for r in records), default=1.0) or 1.0
        return [{"text": r["word"][:40], "size": 1 + round(4 * abs(r["mean"]) / top)} for r in records]

    def _strongest(self, feature: int) -> list[int]:
        import numpy as np

        split = self.store.split("train")
        values = np.where(split.usable, np.asarray(split.X[:, feature], dtype=np.float64), -np.inf)
        return [int(row) for row in np.argsort(-values, kind="stable")[:_PROTOTYPES]]


def _form_action(address: str | None) -> str:
    """Return the origin a form may post to, for the content security policy.

    Raises
    ------
    UsageError
        Not an https address.
    """
    if address is None:
        return "'none'"
    parts = urlsplit(address)
    if parts.scheme != "https" or not parts.hostname or any(c in address for c in " ;'\""):
        raise UsageError(f"--submit-to {address}: give an https address, such as a platform's external submit page")
    return f"https://{parts.netloc}"


def _picture(pixels: Any) -> dict[str, Any]:
    from debugnet.report.blocks import TINY_SIDE, encode_photo

    source, width, height = encode_photo(pixels)
    return {"source": source, "width": width, "height": height, "tiny": max(width, height) <= TINY_SIDE}
