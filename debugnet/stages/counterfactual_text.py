"""``debugnet counterfactual text``: one word changed, the decision asked again."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from debugnet.artifacts.provenance import check_output, collect, input_reference
from debugnet.errors import InputError, UsageError
from debugnet.progress import track
from debugnet.recipes.counterfactual_text import CounterfactualText
from debugnet.stages.inputs import find_input
from debugnet.stages.layers import dense_layer
from debugnet.stages.result import Result, describe_share
from debugnet.stages.word_lists import read_words

if TYPE_CHECKING:
    import numpy as np

    from debugnet.counterfactual.text import Clouds, Substitution
    from debugnet.explain.subject import Subject
    from debugnet.heads import LinearHead
    from debugnet.stages.evaluation import Evaluation

_KIND = "counterfactuals"
_CHUNK = 256  # sentences between two progress ticks


def run(options: CounterfactualText, *, force: bool = False) -> Result:
    """Write ``counterfactuals/``: rows.jsonl, rates.json, and search.jsonl, insertions.json where asked for.

    Raises
    ------
    InputError, UsageError, StaleArtifact
    """
    explanations = options.explanations or Path(options.head).parent / "explanations"
    inputs = {
        "head": input_reference(options.head),
        "features": input_reference(find_input(options.head, "features", options.features)),
        "explanations": input_reference(explanations),
    }
    if options.insert is not None:
        digest = hashlib.sha256("\n".join(read_words(options.insert)).encode()).hexdigest()
        inputs["insert"] = {"kind": "words", "path": str(options.insert), "digest": digest}
    output = options.output or Path(options.head).parent / _KIND
    if check_output(output, _KIND, options, inputs, force=force):
        from debugnet.artifacts.bundle import read_json

        report = read_json(output / "rates.json")
        return Result(output, report, True, _describe(report))
    from debugnet.artifacts.bundle import write_bundle, write_json

    started = time.monotonic()
    experiment = _Experiment.prepare(options, explanations, Path(inputs["features"]["path"]))
    report, rows = experiment.flips()
    found = experiment.search() if options.search else []
    if options.insert is not None:
        report["insertions"] = experiment.insertions(read_words(options.insert))
    if found:
        report["search"] = _summarize_search(found)
    provenance = collect(_KIND, options, inputs, seed=options.seed, seconds=time.monotonic() - started)
    with write_bundle(output, provenance) as folder:
        write_json(folder / "rates.json", report)
        _write_lines(folder / "rows.jsonl", rows)
        if found:
            _write_lines(folder / "search.jsonl", found)
        _draw(folder, report)
    return Result(output, report, False, _describe(report))


@dataclass(frozen=True)
class _Layer:
    """A decision layer under test: sparse or dense."""

    name: str
    head: LinearHead

    def scores(self, Z: np.ndarray) -> np.ndarray:
        """Logits from standardized features."""
        import numpy as np

        scores = Z.astype(np.float64) @ self.head.standardized_weight.T + self.head.standardized_bias
        return np.hstack([np.zeros_like(scores), scores]) if scores.shape[1] == 1 else scores

    def row(self, c: int) -> np.ndarray:
        """Weights (d,) that speak for class c; of a one-row layer, class 0 has the negative ones."""
        weight = self.head.standardized_weight
        return weight[c] if len(weight) > 1 else weight[0] * (1 if c == 1 else -1)


@dataclass
class _Experiment:
    """The sentences, the layers and the clouds, loaded once."""

    options: CounterfactualText
    evaluation: Evaluation
    subject: Subject
    layers: list[_Layer]
    clouds: Clouds
    texts: list[str]
    rows: np.ndarray
    skipped: list[dict[str, str]]

    @classmethod
    def prepare(cls, options: CounterfactualText, explanations: Path, features: Path) -> _Experiment:
        """Load everything; sentences that cannot be read are listed, not silently left out."""
        import numpy as np

        from debugnet.artifacts.explanation_bundle import load_explanations
        from debugnet.counterfactual.text import Clouds
        from debugnet.explain.forward import NotExplainable
        from debugnet.stages.evaluation import Evaluation
        from debugnet.stages.subject import load_subject

        evaluation = Evaluation(options.head, options.split, features)
        if evaluation.head.task != "single-label":
            raise UsageError(f"{options.head} is a {evaluation.head.task} head: flips are counted for single labels")
        bundle = load_explanations(explanations)
        clouds = Clouds(
            *(
                {f: tuple(bundle.words(f, side)[: options.words]) for f in bundle.features}
                for side in ("positive", "negative")
            )
        )
        if not any(clouds.positive.values()) and not any(clouds.negative.values()):
            raise InputError(f"{explanations} holds no word clouds: make them with debugnet explain --methods words")
        subject = load_subject(
            evaluation.store, evaluation.part.split, device=options.device, batch_size=options.batch_size
        )
        if subject.modality != "text":
            raise UsageError(f"{options.head} stands on {subject.modality} features: use debugnet counterfactual image")
        chosen = evaluation.rows
        if options.limit is not None and options.limit < len(chosen):
            rng = np.random.default_rng(options.seed)
            chosen = np.sort(rng.choice(chosen, size=options.limit, replace=False))
        texts, kept, skipped = [], [], []
        for row in chosen:
            try:
                texts.append(subject.text(int(row)))
                kept.append(row)
            except NotExplainable as reason:
                skipped.append({"id": subject.sample_id(int(row)), "why": str(reason)})
        if not texts:
            raise InputError(f"no sentence of split '{options.split}' can be read; the first: {skipped[0]['why']}")
        layers = [_Layer("sparse", evaluation.head)]
        if (dense := dense_layer(options.head)) is not None:
            layers.append(_Layer("dense", dense))
        return cls(options, evaluation, subject, layers, clouds, texts, np.array(kept), skipped)

    def _features(self, texts: Sequence[str], label: str) -> np.ndarray:
        """Standardized features (n, d) of texts, with progress."""
        import numpy as np

        chunks = range(0, len(texts), _CHUNK)
        parts = [self.subject.probe.texts(texts[i : i + _CHUNK]) for i in track(chunks, len(chunks), label, "batch")]
        return np.concatenate(parts) if parts else np.empty((0, self.evaluation.head.weight.shape[1]))

    def _rng(self, row: int, purpose: str) -> np.random.Generator:
        import numpy as np

        from debugnet.explain.forward import sample_seed

        return np.random.default_rng(sample_seed(self.options.seed, f"{purpose}\0{self.subject.sample_id(row)}"))

    def flips(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Algorithm 3 with its control, for every layer; rates on all sentences and on the common ones."""
        from debugnet.counterfactual import text as algorithm

        words = [[normalize(w) for w in _words(t)] for t in self.texts]
        bands = algorithm.frequency_bands(Counter(w for ws in words for w in set(ws)))
        before = self._features(self.texts, "sentences")
        rows: list[dict[str, Any]] = []
        wanted: list[tuple[dict[str, Any], str, str]] = []
        for layer in self.layers:
            scores = layer.scores(before)
            for i, row in enumerate(self.rows):
                rng = self._rng(int(row), layer.name)
                predicted = int(scores[i].argmax())
                edit = algorithm.draw_substitution(words[i], layer.row(predicted), self.clouds, rng)
                record = {
                    "id": self.subject.sample_id(int(row)), "layer": layer.name, "before": self.texts[i],
                    "predicted": self._class(predicted), "logits_before": scores[i].tolist(), "found": edit is not None,
                }  # fmt: skip
                rows.append(record)
                if edit is not None:
                    control = algorithm.draw_control(words[i], edit, bands, rng)
                    record |= {"edit": _edit_record(edit), "control_edit": _edit_record(control)}
                    changed, other = (algorithm.substitute(self.texts[i], e, tokenize) for e in (edit, control))
                    wanted.append((record, changed, other))
        self._judge(wanted)
        return self._rates(rows), rows

    def _judge(self, wanted: list[tuple[dict[str, Any], str, str]]) -> None:
        """Ask the network about all changed sentences at once, and complete the records."""
        after = self._features([text for _, *pair in wanted for text in pair], "changed sentences")
        by_name = {layer.name: layer for layer in self.layers}
        for i, (record, changed, control) in enumerate(wanted):
            scores = by_name[record["layer"]].scores(after[2 * i : 2 * i + 2])
            decided = [self._class(int(s.argmax())) for s in scores]
            record |= {
                "after": changed, "logits_after": scores[0].tolist(), "flipped": decided[0] != record["predicted"],
                "control_after": control, "control_flipped": decided[1] != record["predicted"],
            }  # fmt: skip

    def _rates(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        from debugnet.analysis.intervals import proportion

        found = {
            layer.name: {r["id"] for r in rows if r["layer"] == layer.name and r["found"]} for layer in self.layers
        }
        common = set.intersection(*found.values())
        report: dict[str, Any] = {
            "split": str(self.evaluation.part), "sentences": len(self.texts), "skipped": self.skipped, "layers": {},
        }  # fmt: skip
        for layer in self.layers:
            mine = [r for r in rows if r["layer"] == layer.name and r["found"]]
            used = layer.head.used_features
            record: dict[str, Any] = {
                "features": len(used),
                "features_with_clouds": int(sum(int(f) in self.clouds.positive for f in used)),
                "with_counterfactual": proportion(len(mine), len(self.texts)),
            }
            for name, some in (("all", mine), ("common", [r for r in mine if r["id"] in common])):
                record[name] = {
                    "flip": proportion(sum(r["flipped"] for r in some), len(some)),
                    "control": proportion(sum(r["control_flipped"] for r in some), len(some)),
                }
            report["layers"][layer.name] = record
        return report

    def search(self) -> list[dict[str, Any]]:
        """Look for the fewest substitutions that bring each sentence to the wanted class (sparse layer)."""
        from debugnet.counterfactual.text import search_flip

        layer, names = self.layers[0], [self._class(c) for c in range(len(self.evaluation.head.class_names))]
        if self.options.to is not None and self.options.to not in names:
            raise UsageError(f"--to {self.options.to} is no class: this head has {', '.join(names[:20])}")
        before = layer.scores(self._features(self.texts, "sentences"))
        records = []
        for i, row in enumerate(track(self.rows, len(self.rows), "search", "sentence")):
            ranked = before[i].argsort()[::-1]
            current = int(ranked[0])
            target = int(ranked[1]) if self.options.to is None else names.index(self.options.to)
            if target == current:
                continue
            result = search_flip(
                self.texts[i], tokenize, normalize, partial(self._gap, layer, target), self.clouds,
                layer.row(target) - layer.row(current), max_substitutions=self.options.max_substitutions,
            )  # fmt: skip
            records.append(
                {
                    "id": self.subject.sample_id(int(row)), "before": self.texts[i], "after": result.text,
                    "from": names[current], "to": names[target], "flipped": result.reached,
                    "edits": [_edit_record(e) for e in result.substitutions], "texts_asked": result.n_texts,
                }
            )  # fmt: skip
        return records

    def _gap(self, layer: _Layer, target: int, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        scores = layer.scores(self.subject.probe.texts(list(texts)))
        gap: np.ndarray = scores[:, target] - np.delete(scores, target, axis=1).max(axis=1)
        return gap

    def insertions(self, words: Sequence[str]) -> list[dict[str, Any]]:
        """Put each word into every sentence and count, per word and layer, how often the decision flips."""
        from debugnet.analysis.intervals import proportion
        from debugnet.counterfactual.text import insert_word

        before = self._features(self.texts, "sentences")
        texts = [
            insert_word(text, word, tokenize, self._rng(int(row), f"insert {word}"))
            for word in words
            for text, row in zip(self.texts, self.rows, strict=True)
        ]
        after = self._features(texts, "insertions").reshape(len(words), len(self.texts), -1)
        tokenizer = getattr(self.subject.backbone, "tokenizer", None)
        records = []
        for i, word in enumerate(words):
            record: dict[str, Any] = {"word": word, "unknown_to_the_network": _unknown(tokenizer, word)}
            for layer in self.layers:
                old, new = layer.scores(before).argmax(axis=1), layer.scores(after[i]).argmax(axis=1)
                flips = Counter((self._class(a), self._class(b)) for a, b in zip(old, new, strict=True) if a != b)
                record[layer.name] = proportion(sum(flips.values()), len(old)) | {
                    "to": [{"from": a, "to": b, "count": n} for (a, b), n in flips.most_common()]
                }
            records.append(record)
        return sorted(records, key=lambda r: -r["sparse"]["count"])

    def _class(self, c: int) -> str:
        return str(self.evaluation.head.class_names[c])


def tokenize(text: str) -> tuple[list[str], list[int]]:
    """Cut a text into pieces of which some are words, as the explanations do."""
    from debugnet.explain.tokenization import split_words

    pieces, positions, end = [], [], 0
    for start, stop in split_words(text):
        pieces += [text[end:start], text[start:stop]]
        positions.append(len(pieces) - 1)
        end = stop
    return [*pieces, text[end:]], positions


def normalize(word: str) -> str:
    """The form in which clouds hold words."""
    return word.casefold()


def _words(text: str) -> list[str]:
    pieces, positions = tokenize(text)
    return [pieces[i] for i in positions]


def _unknown(tokenizer: Any, word: str) -> bool:
    """Whether the network's vocabulary cannot spell the word."""
    if tokenizer is None or tokenizer.unk_token_id is None:
        return False
    return tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]


def _edit_record(edit: Substitution) -> dict[str, Any]:
    feature = None if edit.feature < 0 else edit.feature
    return {"position": edit.position, "before": edit.before, "after": edit.after, "feature": feature}


def _write_lines(path: Path, records: Sequence[dict[str, Any]]) -> None:
    from debugnet.artifacts.canonical import jsonable

    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        for record in records:
            file.write(json.dumps(jsonable(record), ensure_ascii=False) + "\n")


def _summarize_search(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from debugnet.analysis.intervals import proportion

    reached = [r for r in records if r["flipped"]]
    return {
        "flipped": proportion(len(reached), len(records)),
        "substitutions": dict(sorted(Counter(len(r["edits"]) for r in reached).items())),
    }


def _draw(folder: Path, report: dict[str, Any]) -> None:
    from debugnet.report.debugging_figures import plot_flip_rates
    from debugnet.report.figures import drawing

    which = "common" if len(report["layers"]) > 1 else "all"
    rates = {
        f"{name}, {what}": layer[which][kind]
        for name, layer in report["layers"].items()
        for what, kind in (("a cloud's word", "flip"), ("control", "control"))
        if layer[which][kind]["n"]
    }
    if rates:
        with drawing(folder, "flip_rates", 5.8, 1.2 + 0.4 * len(rates)) as figure:
            axes = figure.subplots()
            plot_flip_rates(axes, rates)
            axes.set_title("One word changed: how often the decision flips")


def _describe(report: dict[str, Any]) -> str:
    lines = [f"{report['sentences']} sentences of {report['split']}, {len(report['skipped'])} skipped"]
    for name, layer in report["layers"].items():
        lines.append(
            f"{name}: {layer['features_with_clouds']} of {layer['features']} features have clouds; "
            f"{layer['with_counterfactual']['value']:.1%} of the sentences have a counterfactual"
        )
        for which, text in (("common", "where all layers have one"), ("all", "on all of its own")):
            flip, control = (describe_share(layer[which][kind]) for kind in ("flip", "control"))
            lines.append(f"  flips {text}: {flip}, control {control}")
    if "search" in report:
        counts = report["search"]["substitutions"]
        lines.append(f"search: {describe_share(report['search']['flipped'])} flipped, by number of words {counts}")
    for row in report.get("insertions", [])[:10]:
        note = " (not in the vocabulary)" if row["unknown_to_the_network"] else ""
        lines.append(f"  inserting '{row['word']}'{note}: flips {describe_share(row['sparse'])}")
    return "\n".join(lines)
