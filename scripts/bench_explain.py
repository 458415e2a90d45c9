"""LIME on deep features: debugnet beside lime's own protocol, same samples, same machine, one run.

    python scripts/bench_explain.py text  --model ../shared/data/weights/minilm_l6_v2_fp16 \
        --sentences ../shared/data/text/sst2_dev.tsv
    python scripts/bench_explain.py image --weights ../shared/data/weights/resnet50_imagenet_decoded_pqf.npz \
        --photo ../shared/data/vision/photos/chelsea.png
    python scripts/bench_explain.py planted --run runs/demo_reviews
    python scripts/bench_explain.py features --run runs/sst2_minilm --features 136 --words never film

``planted`` holds finished explanations of a demo to what was planted; ``features`` prints what finished explanations
say of some features (all without ``--features``): their words, and fit and deletion check of every sample.
All times are CPU seconds of this process (one thread), so a busy machine does not decide the ratios.
"lime" is the lime package as the paper's code calls it: for text all features from one set of 5,000
perturbations, 10 words each, refitted one by one; for images one run of 1,000 perturbations per feature.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from debugnet.artifacts.explanation_bundle import load_explanations
from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.explain.forward import Probe, sample_seed
from debugnet.explain.lime_image import explain_image
from debugnet.explain.lime_text import explain_texts
from debugnet.explain.surrogate import fit_surrogate
from debugnet.explain.tokenization import Words


class Clock:
    """CPU seconds, and how many of them a wrapped network took."""

    def __init__(self, features: Callable) -> None:
        self.features, self.inside, self.calls = features, 0.0, 0

    def __call__(self, batch):
        """Features of the batch, on the clock."""
        started = time.process_time()
        with torch.inference_mode():
            answer = self.features(batch)
        self.inside += time.process_time() - started
        self.calls += len(batch)
        return answer


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of the work, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def report(name: str, figures: dict) -> None:
    """Print one JSON line."""

    def short(value):
        if isinstance(value, dict):
            return {k: short(v) for k, v in value.items()}
        if isinstance(value, list):
            return [short(v) for v in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    print(json.dumps({"bench": name} | short(figures)))


def overhead_text(n_words: int, d: int, n_samples: int = 5000) -> None:
    """Everything but the network, which is replaced by a table look-up of ready numbers on both sides."""
    from lime.lime_text import LimeTextExplainer

    text = " ".join(f"word{i}" for i in range(n_words))
    table = np.random.RandomState(0).randn(n_words, d).astype(np.float32)
    words = {f"word{i}": i for i in range(n_words)}

    def features(texts):
        present = np.zeros((len(texts), n_words), np.float32)
        for row, some in zip(present, texts, strict=True):
            row[[words[w] for w in some.split()]] = 1
        return torch.from_numpy(np.tanh(present @ table))

    ours, theirs = Clock(features), Clock(features)

    def run_ours():
        return explain_texts([text], Probe(ours, 256), [7], n_samples=n_samples)[0].fit()

    total_ours, _ = timed(run_ours)
    compat_clock = Clock(features)
    total_compat, fitted = timed(
        lambda: explain_texts([text], Probe(compat_clock, 256), [7], n_samples=n_samples, lime_compat=True)[0].fit()
    )
    explainer = LimeTextExplainer(random_state=7)
    total_lime, found = timed(
        lambda: explainer.explain_instance(
            text, lambda t: theirs(t).numpy(), labels=range(d), num_features=10, num_samples=n_samples
        )
    )
    difference = max(abs(fitted.effect[k, j] - v) for j in range(d) for k, v in found.local_exp[j])
    lime = total_lime - theirs.inside
    report(
        "text, without forward passes",
        {
            "words": n_words,
            "d": d,
            "samples": n_samples,
            "lime_s": lime,
            "debugnet_s": total_ours - ours.inside,
            "debugnet_lime_compat_s": total_compat - compat_clock.inside,
            "ratio": lime / (total_ours - ours.inside),
            "ratio_lime_compat": lime / (total_compat - compat_clock.inside),
            "largest_difference_to_lime": float(difference),
        },
    )


def choose_sentences(path: Path, n: int) -> list[str]:
    """Sentences of the file at evenly spread quantiles of the number of distinct words."""
    texts = [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    ordered = sorted(texts, key=lambda text: len(Words.of(text).vocabulary))
    return [ordered[int((i + 0.5) / n * len(ordered))] for i in range(n)]


def relative_spread(runs: list[list[np.ndarray]]) -> list[float]:
    """Per sentence, the standard error of an effect, by two runs, in standard deviations of the effects."""
    return [
        float(np.sqrt(((first - second) ** 2).mean() / 2 / (first + second).var(axis=0).mean() * 4))
        for first, second in zip(*runs, strict=True)
    ]


def whole_text(
    model: Path, sentences: Path, n_sentences: int, n_samples: int, our_samples: list[int], d_lime: int
) -> None:
    """SST-2 through MiniLM: forward passes included.  lime refits ``d_lime`` features and is scaled to all."""
    from lime.lime_text import LimeTextExplainer

    backbone = load_backbone(BackboneSpec(str(model), pooling="mean"), "cpu")
    chosen = choose_sentences(sentences, n_sentences)

    def features(texts):
        return backbone.features(backbone.encode(list(texts)))

    theirs = Clock(features)

    def run_ours(probe, n, seed, compat=False):
        seeds = [sample_seed(seed, t) for t in chosen]
        found = explain_texts(chosen, probe, seeds, n_samples=n, lime_compat=compat)
        return [fit_surrogate(e.moments).effect if compat else e.fit().effect for e in found]

    def run_lime():
        explainer = LimeTextExplainer(random_state=0)

        def classify(texts):  # lime hands over all perturbations at once: batches of 64 here
            return np.concatenate([theirs(texts[i : i + 64]).numpy() for i in range(0, len(texts), 64)])

        for text in chosen:
            explainer.class_names = None
            explainer.explain_instance(text, classify, labels=range(d_lime), num_features=10, num_samples=n_samples)

    features(chosen)
    total_lime, _ = timed(run_lime)
    d = backbone.feature_dim
    lime = theirs.inside + (total_lime - theirs.inside) * d / d_lime
    plain = Probe(Clock(features), 64)
    figures: dict[str, object] = {
        "sentences": len(chosen),
        "distinct_words": [len(Words.of(t).vocabulary) for t in chosen],
        "d": d,
        "lime": {"samples": n_samples, "passes": theirs.calls, "forward_s": theirs.inside, "total_s": lime},
        "lime_spread": relative_spread([run_ours(plain, n_samples, seed, compat=True) for seed in (0, 1)]),
    }
    for n in our_samples:
        ours = Clock(features)
        total, first = timed(lambda n=n, ours=ours: run_ours(Probe(ours, 64), n, 0))
        figures[f"debugnet_{n}"] = {
            "passes": ours.calls,
            "forward_s": ours.inside,
            "total_s": total,
            "forward_ratio": theirs.inside / ours.inside,
            "total_ratio": lime / total,
            "over_its_bare_forward_passes": total / ours.inside,
            "spread": relative_spread([first, run_ours(plain, n, 1)]),
        }
    report("text, SST-2 sentences through MiniLM", figures)


def whole_image(weights: Path, name: str, photo: Path, n_features: int, n_samples: int, n_lime: int, size: int) -> None:
    """One image, several features.  lime runs ``n_lime`` features and is scaled to all: its runs are alike."""
    from lime.lime_image import LimeImageExplainer
    from PIL import Image

    spec = BackboneSpec(name, weights=str(weights), image_size=size)
    backbone = load_backbone(spec, "cpu")
    pixels = backbone.to_pixels(Image.open(photo).convert("RGB")).numpy()

    def features(batch):
        return backbone.features(backbone.normalize(batch))

    ours, theirs = Clock(features), Clock(features)
    features(torch.rand(8, 3, size, size))
    total_ours, _ = timed(
        lambda: explain_image(pixels, Probe(ours, 50), n_samples=n_samples, fill="black", lime_compat=True).fit(
            np.arange(n_features)
        )
    )

    def classify(batch):
        return theirs(torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255).numpy()

    def run_lime():
        for feature in range(n_lime):
            explainer = LimeImageExplainer(random_state=0, verbose=False)
            with contextlib.redirect_stderr(io.StringIO()):
                explainer.explain_instance(
                    pixels, classify, labels=[feature], top_labels=None, hide_color=0, num_samples=n_samples,
                    batch_size=50,
                )  # fmt: skip

    total_lime, _ = timed(run_lime)
    scale = n_features / n_lime
    report(
        f"image, {n_features} features of one photo through {name} at {size} px",
        {
            "samples": n_samples,
            "lime_runs_measured": n_lime,
            "lime_forward_passes": int(theirs.calls * scale),
            "debugnet_forward_passes": ours.calls,
            "forward_pass_ratio": theirs.calls * scale / ours.calls,
            "lime_s": total_lime * scale,
            "debugnet_s": total_ours,
            "total_ratio": total_lime * scale / total_ours,
            "debugnet_over_its_bare_forward_passes": total_ours / ours.inside,
        },
    )


def planted_words(run: Path, truth: dict) -> None:
    """Word clouds of the reviews demo against the grammar's sentiment words and its shortcut word."""
    bundle, sentiment, shortcut = load_explanations(run / "explanations"), truth["sentiment"], truth["shortcut_word"]
    layer: dict[str, float] = {}
    for feature in bundle.features:
        table = {row["word"]: row for row in bundle.word_table(feature)}
        weight = bundle.index["features"][str(feature)]["classes"][truth["shortcut_class_name"]]
        for word, row in table.items():
            layer[word] = layer.get(word, 0.0) + weight * row["mean"]
        tag = truth.get("feature_tags", {})
        figures = {"feature": feature, "learned": tag[feature] if tag else None, "weight": weight}
        if shortcut in table:
            row = table[shortcut]
            figures |= {"rank_of_shortcut": 1 + list(table).index(shortcut), "mean": row["mean"], "n": row["n"]}
        report("planted word", figures | {"top": list(table)[:3]})
    known = [word for word in sentiment if word in layer]
    report(
        "sentiment words, all features through the layer's weights",
        {
            "words": len(known),
            "right_side": sum(layer[word] * sentiment[word] > 0 for word in known),
            "rank_correlation": float(spearmanr([layer[w] for w in known], [sentiment[w] for w in known])[0]),
        },
    )


def planted_patch(run: Path, truth: dict) -> None:
    """Strongest superpixel of the digits demo's features against the planted patch."""
    bundle = load_explanations(run / "explanations")
    left, top, right, bottom = truth["patch_box"]
    patch = np.zeros((truth["image_size"],) * 2, dtype=bool)
    patch[top:bottom, left:right] = True
    for feature in bundle.features:
        ours, random = [], []
        for record in bundle.records(feature, "positive", "lime"):
            parts = [bundle.segments(record) == k for k in range(len(record["effects"]))]
            overlap = [float((part & patch).sum() / (part | patch).sum()) for part in parts]
            ours.append(overlap[int(np.argmax(record["effects"]))])
            random.append(float(np.mean(overlap)))
        classes = bundle.index["features"][str(feature)]["classes"]
        report("planted patch", {"feature": feature, "classes": classes, "iou": ours, "iou_random_segment": random})


def what_features_read(run: Path, features: list[int] | None, words: list[str]) -> None:
    """The figures of finished explanations, feature by feature: words, fit, deletion."""
    bundle = load_explanations(run / "explanations")
    flagged, sizes = [], []
    for feature in features or bundle.features:
        table = {row["word"]: row for row in bundle.word_table(feature)}
        named = [word for word in words if word in table]
        for word in named or [*list(table)[:3], *list(table)[-3:]]:
            row = table[word]
            report("word", {"feature": feature} | {k: row[k] for k in ("word", "mean", "n", "low", "high")})
        for side in bundle.sides(feature):
            for found in bundle.records(feature, side, "lime"):
                keys = ("sample_id", "r2", "split_half", "n_removed", "predicted", "measured", "random_mean", "flags")
                report("sample", {"feature": feature, "side": side} | {k: found[k] for k in keys})
                flagged.append(bool(found["flags"]))
                sizes.append(len(found["effects"]))
    if flagged:
        report("all samples", {"n": len(flagged), "flagged": sum(flagged), "parts": [min(sizes), max(sizes)]})


def main() -> None:
    """Run one of the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "text", "image", "planted", "features"])
    parser.add_argument("--run", type=Path, help="run folder with explanations/ in it, for planted and features")
    parser.add_argument("--features", type=int, nargs="+", help="features: these alone")
    parser.add_argument("--words", nargs="+", default=[], help="features: these words, not the ends of the tables")
    parser.add_argument("--model", type=Path, default=Path("../shared/data/weights/minilm_l6_v2_fp16"))
    parser.add_argument("--sentences", type=Path, default=Path("../shared/data/text/sst2_dev.tsv"))
    weights = Path("../shared/data/weights/resnet50_imagenet_decoded_pqf.npz")
    parser.add_argument("--weights", type=Path, default=weights)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--photo", type=Path, default=Path("../shared/data/vision/photos/chelsea.png"))
    parser.add_argument("--size", type=int, default=224, help="side of the image the network sees, pixels")
    parser.add_argument("--n-sentences", type=int, default=4)
    parser.add_argument("--our-samples", type=int, nargs="+", default=[2000], help="text: perturbations of ours")
    parser.add_argument("--samples", type=int, default=None, help="perturbations (default: 5000 text, 1000 image)")
    parser.add_argument("--lime-features", type=int, default=None, help="features lime is really run on, then scaled")
    options = parser.parse_args()
    torch.set_num_threads(1)
    explain_texts(["warm up"], Probe(lambda texts: torch.zeros(len(texts), 2)), [0])[0].fit()  # loads what loads late
    if options.what == "planted":
        truth = json.loads((options.run / "demo" / "truth.json").read_text(encoding="utf-8"))
        (planted_words if "shortcut_word" in truth else planted_patch)(options.run, truth)
    elif options.what == "features":
        what_features_read(options.run, options.features, options.words)
    elif options.what == "overhead":
        for n_words, d in ((20, 384), (20, 768), (50, 768)):
            overhead_text(n_words, d, options.samples or 5000)
    elif options.what == "text":
        samples, few = options.samples or 5000, options.lime_features or 16
        ours = options.our_samples
        whole_text(options.model, options.sentences, options.n_sentences, samples, ours, few)
    else:
        samples, few = options.samples or 1000, options.lime_features or 1
        whole_image(options.weights, options.network, options.photo, 20, samples, few, options.size)


if __name__ == "__main__":
    main()
