"""Do the debugging commands find planted shortcuts, and how often do they cry wolf?

    python scripts/bench_debugging.py planted --run runs/demo_digits --clean runs/demo_digits_clean
    python scripts/bench_debugging.py patch --weights FILE.th --data cifar10_jpg_subset.zip -o runs/bench_cifar
    python scripts/bench_debugging.py false-alarms runs/*/features.h5 --seeds 20
    python scripts/bench_debugging.py speed -o runs/bench_speed

``planted`` takes two finished demo runs, the second made with ``--set train-demo.shortcut-share=0`` (reviews: with
``--set train-demo.counter-share=1``, so that its network knows the word), and measures what removing the suspects
wins back, as a share of the gap to the network without the shortcut.
``patch`` pastes a red square into one class's training images and into half of the test images (those of val where
there is no test), and compares with a layer fitted on clean ones.  Images become squares of one size.
``false-alarms`` splits the rows of a store at random (so train and test are alike by construction), fits
a sparse layer and counts how often anything is suspected.
``speed`` runs diagnose and pairs on generated features: 50,000 samples, 2,048 features, 1,000 classes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np


def debugnet(*words: object) -> dict:
    """Run a debugnet command; returns its JSON document."""
    command = [sys.executable, "-m", "debugnet", *map(str, words), "--json", "--force", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


def find_and_remove(head: Path, out: Path) -> dict:
    """Diagnose on half of the test split, edit, audit on the other half."""
    diagnosis = debugnet("diagnose", head, "--split", "test/a", "-o", out / "diagnosis")
    report = json.loads((out / "diagnosis" / "diagnosis.json").read_text())
    ranked = [(row["feature"], round(row["z"], 1), row["suspect"]) for row in report["suspects"][:3]]
    result = {"suspects": diagnosis["suspects"], "first": ranked, "fixable": diagnosis["fixed_by_one_feature"]["mean"]}
    if diagnosis["suspects"]:
        edits = out / "diagnosis" / "edits.yaml"
        for name, flags in (("removed", ()), ("refitted", ("--refit",))):
            result[name] = debugnet("edit", head, "--from", edits, *flags, "-o", out / f"head_{name}")
    return result


def carried_by_the_shortcut(features: Path, count: int = 10) -> list[int]:
    """Ground truth: the features that differ most between test samples with and without the shortcut."""
    import debugnet as package

    store = package.load_features(features)
    test = store.split("test")
    Z = store.standardizer.transform(np.asarray(test.X, dtype=np.float64))
    with_it = np.array(["+" in store.group_names[g] for g in test.groups])
    gap = Z[with_it].mean(axis=0) - Z[~with_it].mean(axis=0)
    return [int(j) for j in np.argsort(-np.abs(gap))[:count]]


def worst_group(head: Path, features: Path, part: str = "test/b") -> dict:
    """Accuracy and worst-group accuracy of a head on any store with the same features."""
    from debugnet.analysis.edit import audit
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import load_head
    from debugnet.stages.evaluation import Part

    store, layer = load_features(features), load_head(head)
    chosen = Part.parse(part)
    split = store.split(chosen.split)
    rows = chosen.rows(split.ids, split.usable)
    report = audit(layer, layer, split.X[rows], split.y[rows], groups=split.groups[rows], group_names=store.group_names)
    worst = report["worst_group"]["before"]
    return {"accuracy": report["before"]["value"], "worst": worst["before"]["value"], "group": worst["name"]}


def show(name: str, found: dict, truth: list[int], before: dict, clean: dict) -> None:
    """Print what was found and what removing it did, for one data set."""
    print(f"{name}: before {before}")
    print(f"  suspects (feature, z, passed): {found['first']}; the shortcut's own features: {truth}")
    ranks = [i + 1 for i, row in enumerate(found["first"]) if row[0] in truth]
    rank = ranks[0] if ranks else "none of the first three"
    print(f"  planted feature at rank {rank}; one-feature fixes {found['fixable']['value']:.1%}")
    for way in ("removed", "refitted"):
        if way in found:
            after = found[way]["worst_group"]["after"]
            worst = after["after"]["value"]
            gap = clean["worst"] - before["worst"]
            share = (worst - before["worst"]) / gap if gap > 0 else float("nan")
            accuracy = found[way]["after"]["value"]
            print(
                f"  {way}: accuracy {accuracy:.3f}, worst group {worst:.3f} ({after['name']}), {share:.0%} of the gap"
            )
    print(f"  without the shortcut in training: {clean}")


def planted(arguments: argparse.Namespace) -> None:
    """A demo with its shortcut against the same demo trained without it."""
    head, features = arguments.run / "head", arguments.run / "features.h5"
    found = find_and_remove(head, arguments.run / "bench")
    before = worst_group(head, features)
    # The clean network sees the very same test samples: extract them with it.
    extracted = debugnet(
        "extract",
        "--backbone",
        arguments.clean / "demo",
        "--data",
        arguments.run / "demo",
        "-o",
        arguments.run / "bench" / "clean.h5",
    )
    clean = worst_group(arguments.clean / "head", Path(extracted["path"]))
    show(str(arguments.run), found, carried_by_the_shortcut(features), before, clean)


def read_images(file: Path, train_rows: int, seed: int) -> tuple[dict, dict, list[str]]:
    """Images and labels of the splits train (some rows of it) and test, cut to squares of one size."""
    from PIL import ImageOps

    from debugnet.data import DataSpec, load_dataset

    splits = load_dataset(DataSpec(str(file), val_fraction=0))
    side = min(splits.splits["train"][0].size)
    images, labels = {}, {}
    for name in ("train", "test"):
        data = splits.splits[name if name in splits.splits else "val"]
        rows = np.sort(np.random.default_rng(seed).permutation(len(data))[: train_rows if name == "train" else None])
        images[name] = np.stack([np.asarray(ImageOps.fit(data[i].convert("RGB"), (side, side))) for i in rows])
        labels[name] = np.asarray(data.labels[rows])
    return images, labels, splits.class_names


def patch(arguments: argparse.Namespace) -> None:
    """Paste a patch into one class's training images."""
    out: Path = arguments.output
    out.mkdir(parents=True, exist_ok=True)
    x, y, names = read_images(arguments.data, arguments.train_rows, arguments.seed)
    shared = {f"y_{split}": labels for split, labels in y.items()} | {"classes": np.array(names)}
    np.savez_compressed(out / "clean.npz", **{f"x_{split}": images for split, images in x.items()}, **shared)
    rng = np.random.default_rng(arguments.seed)
    for split, chance in (("train", arguments.share * (y["train"] == arguments.target)), ("test", 0.5)):
        carries = rng.random(len(y[split])) < chance
        x[split][carries, 1 : arguments.size + 1, 1 : arguments.size + 1] = (255, 0, 0)  # a red square, upper left
        shared[f"groups_{split}"] = y[split] * 2 + carries
    shared["group_names"] = np.array([f"{name}{suffix}" for name in names for suffix in ("", " + patch")])
    np.savez_compressed(out / "patched.npz", **{f"x_{split}": images for split, images in x.items()}, **shared)
    common = ("--backbone", arguments.backbone, "--weights", arguments.weights)
    for name, data in (("patched", out / "patched.npz"), ("clean", out / "clean.npz")):
        debugnet("extract", *common, "--data", data, "-o", out / name / "features.h5")
        debugnet("fit-path", out / name / "features.h5", "-o", out / name / "path.h5")
        debugnet("select", out / name / "path.h5", "--drop", "5%", "-o", out / name / "head")
    features = out / "patched" / "features.h5"
    found = find_and_remove(out / "patched" / "head", out / "bench")
    before, clean = (worst_group(out / name / "head", features) for name in ("patched", "clean"))
    show(
        f"{arguments.data.name}, patch on '{names[arguments.target]}'",
        found,
        carried_by_the_shortcut(features),
        before,
        clean,
    )


def false_alarms(arguments: argparse.Namespace) -> None:
    """Random splits of real features: how often is anything suspected?"""
    from debugnet import glm
    from debugnet.analysis.intervals import wilson_interval
    from debugnet.analysis.misclassification import ablate_features
    from debugnet.analysis.suspects import Samples, combine_evidence, measure_reliance
    from debugnet.artifacts.feature_store import load_features
    from debugnet.heads import LinearHead

    for file in arguments.stores:
        store = load_features(file)
        if store.task != "single-label":
            continue
        parts = [store.split(name) for name in (arguments.splits or store.splits)]
        X = np.concatenate([np.asarray(p.X[p.usable]) for p in parts])
        y = np.concatenate([np.asarray(p.y[p.usable]) for p in parts])
        alarms = 0
        for seed in range(arguments.seeds):
            order = np.random.default_rng(seed).permutation(len(X))[: arguments.rows]
            cut = int(0.6 * len(order))
            train, test = order[:cut], order[cut:]
            path = glm.fit_path(
                X[train], y[train], n_lambdas=20, lambda_min_ratio=0.02, max_features_per_class=10, tol=1e-4
            )
            head = LinearHead(*path.raw(len(path) - 1), path.standardizer, path.meta["family"], store.class_names)
            sets = [Samples(X[rows], head.logits(X[rows]), y[rows]) for rows in (test, train)]
            evidence = combine_evidence(measure_reliance(head, *sets), ablate_features(head, X[test], y[test]))
            alarms += bool(evidence.min() < 0.05)
        low, high = wilson_interval(alarms, arguments.seeds)
        print(
            f"{file}: {alarms} of {arguments.seeds} random splits have a suspect ({low:.1%} to {high:.1%})", flush=True
        )


def speed(arguments: argparse.Namespace) -> None:
    """CPU seconds and peak memory of diagnose and pairs at the size of ImageNet's validation split."""
    from debugnet.artifacts.feature_store import create_feature_store
    from debugnet.artifacts.head_store import save_head
    from debugnet.artifacts.provenance import collect, input_reference
    from debugnet.heads import LinearHead
    from debugnet.standardization import Standardizer

    out: Path = arguments.output
    n, d, k, per_class = arguments.rows, 2048, 1000, 20
    rng = np.random.default_rng(0)
    weight = np.zeros((k, d))
    for row in weight:
        row[rng.choice(d, per_class, replace=False)] = rng.exponential(0.5, per_class)
    names = [f"class {c}" for c in range(k)]
    head = LinearHead(weight, np.zeros(k), Standardizer(np.zeros(d), np.ones(d)), "multinomial", names)
    sizes = {"train": 20_000, "test": n}
    labels = {}
    with create_feature_store(out / "features.h5", sizes, d, provenance=collect("features", {}, {}), force=True) as w:
        for split, rows in sizes.items():
            labels[split] = rng.integers(0, k, rows)
            for start in range(0, rows, 5000):
                y = labels[split][start : start + 5000]
                X = np.abs(rng.normal(size=(len(y), d))) + 0.35 * (weight[y] > 0)
                w.write(split, start, X.astype(np.float32))
        ids = {split: [f"{split}/{i}" for i in range(rows)] for split, rows in sizes.items()}
        w.finish(labels=labels, ids=ids, task="single-label", class_names=names, config={})
    made = collect("head", {}, {"features": input_reference(out / "features.h5")})
    save_head(out / "head", head, made)
    for command in ("diagnose", "pairs"):
        words = (command, out / "head", "--split", "test", "-o", out / command)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = debugnet(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        peak = after.ru_maxrss / 2**20
        print(f"{command}: {seconds:.0f} s of CPU, peak memory {peak:.1f} GiB; {report}", flush=True)


def main() -> None:
    """Parse the arguments and run one benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("planted")
    one.add_argument("--run", type=Path, required=True)
    one.add_argument("--clean", type=Path, required=True)
    one.set_defaults(call=planted)
    two = commands.add_parser("patch")
    two.add_argument("--weights", type=Path, required=True)
    two.add_argument("--data", type=Path, required=True)
    two.add_argument("-o", "--output", type=Path, required=True)
    two.add_argument("--target", type=int, default=3)
    two.add_argument("--backbone", default="cifar_resnet20")
    two.add_argument("--train-rows", type=int, default=4000)
    two.add_argument("--size", type=int, default=10, help="side of the patch, pixels")
    two.add_argument("--share", type=float, default=0.9, help="of the class's training images that carry it")
    two.add_argument("--seed", type=int, default=0)
    two.set_defaults(call=patch)
    three = commands.add_parser("false-alarms")
    three.add_argument("stores", type=Path, nargs="+")
    three.add_argument("--splits", nargs="*")
    three.add_argument("--seeds", type=int, default=20)
    three.add_argument("--rows", type=int, default=2000)
    three.set_defaults(call=false_alarms)
    four = commands.add_parser("speed")
    four.add_argument("-o", "--output", type=Path, required=True)
    four.add_argument("--rows", type=int, default=50_000)
    four.set_defaults(call=speed)
    arguments = parser.parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
