"""Is an untrained network told apart: by its weights, and by the checks that every explanation passes or fails?

    python scripts/bench_untrained.py weights --runs runs/demo_digits runs/demo_reviews
    python scripts/bench_untrained.py checks --run runs/demo_digits

``weights`` counts the matrices that `debugnet.explain.untrained.check_weights` names, in ten architectures with random
weights (three seeds each) and in trained networks: four ResNets, MiniLM, and the networks of the demo runs given.
``checks`` explains samples of a network as it is and with random weights: fit, agreement of two halves, deletion.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from transformers import AutoModel

from debugnet.backbones import BackboneSpec, load_backbone
from debugnet.data import DataSpec, load_dataset
from debugnet.explain.forward import Probe
from debugnet.explain.lime_image import ImagePerturber, explain_image
from debugnet.explain.lime_text import explain_texts
from debugnet.explain.superpixels import fill_image
from debugnet.explain.trust import deletion_masks, judge
from debugnet.explain.untrained import check_weights

TORCHVISION = (
    "resnet18", "resnet50", "vgg11", "vit_b_16", "mobilenet_v3_small", "efficientnet_b0", "densenet121",
    "convnext_tiny", "swin_t",
)  # fmt: skip
TRAINED = {
    "resnet18": "resnet18_imagenet_decoded_pqf.npz",
    "resnet50": "resnet50_imagenet_decoded_pqf.npz",
    "cifar_resnet20": "cifar10_resnet20-12fca82f.th",
    "cifar_resnet56": "cifar10_resnet56-4bfd9763.th",
}


def trained_networks(weights: Path, runs: list[Path]) -> dict[str, BackboneSpec]:
    """Names and specs."""
    specs = {name: BackboneSpec(name, weights=str(weights / file)) for name, file in TRAINED.items()}
    specs["MiniLM"] = BackboneSpec(str(weights / "minilm_l6_v2_fp16"), pooling="mean")
    return specs | {run.name: BackboneSpec(str(run / "demo")) for run in runs}


def count(title: str, networks: dict[str, Callable[[], torch.nn.Module]]) -> None:
    """Check every network and add up."""
    found, started = [], time.process_time()
    for name, build in networks.items():
        check = check_weights(build())
        found.append(check)
        named = f": {', '.join(check.untrained)}" if 0 < len(check.untrained) < 4 else ""
        print(f"  {name}: {len(check.untrained)} of {check.n_matrices}, flagged {bool(check.flags)}{named}", flush=True)
    print(
        f"{title}: {sum(len(c.untrained) for c in found)} of {sum(c.n_matrices for c in found)} matrices look "
        f"untrained, {sum(bool(c.flags) for c in found)} of {len(found)} networks flagged; "
        f"{time.process_time() - started:.0f} s of CPU",
        flush=True,
    )


def weights(options: argparse.Namespace) -> None:
    """Count the matrices named in networks with random weights and in trained ones."""
    specs = trained_networks(options.weights, options.runs)
    count("trained", {name: lambda spec=spec: load_backbone(spec, "cpu").network for name, spec in specs.items()})
    config = load_backbone(specs["MiniLM"], "cpu").network.config
    fresh: dict[str, Callable[[], torch.nn.Module]] = {"BERT": lambda: AutoModel.from_config(config)}
    fresh |= {name: lambda name=name: torchvision.models.get_model(name, weights=None) for name in TORCHVISION}

    def seeded(build: Callable[[], torch.nn.Module], seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return build()

    count(
        "untrained",
        {
            f"{name}, seed {seed}": lambda build=build, seed=seed: seeded(build, seed)
            for seed in range(options.seeds)
            for name, build in fresh.items()
        },
    )


def randomize(network: torch.nn.Module) -> None:
    """Give a network the weights it would start training with."""
    torch.manual_seed(1)
    if hasattr(network, "config"):  # Hugging Face's draw by the model, not by the layer
        network.load_state_dict(AutoModel.from_config(network.config).float().state_dict())
        return
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def checks(options: argparse.Namespace) -> None:
    """Explain a few samples for all features, with the trained and with random weights."""
    specs = {options.run.name: (BackboneSpec(str(options.run / "demo")), DataSpec(str(options.run / "demo")))}
    sst2 = DataSpec(str(options.sentences), text_columns=("sentence",), label_columns=("label",))
    specs["MiniLM, SST-2"] = (trained_networks(options.weights, [])["MiniLM"], sst2)
    for name, (spec, data) in specs.items():
        splits = load_dataset(data)
        samples = splits.splits["val" if "val" in splits.splits else "train"]
        for state in ("trained", "random"):
            backbone = load_backbone(spec, "cpu")
            if state == "random":
                randomize(backbone.network)
            trusts = (image_trusts if backbone.modality == "image" else text_trusts)(backbone, samples)
            r2, halves = (np.array([getattr(t, key) for t in trusts]) for key in ("r2", "split_half"))
            print(
                f"{name}, {state} weights: R2 {np.nanmedian(r2):.2f}, agreement {np.nanmedian(halves):.2f} (medians), "
                f"{np.mean([bool(t.flags) for t in trusts]):.0%} of {len(trusts)} flagged",
                flush=True,
            )


def image_trusts(backbone, samples, n_images: int = 6, n_features: int = 64) -> list:
    """Fit, agreement and deletion of each feature on each of the first images; slic, 400 perturbations, black."""
    probe, sides, trusts = Probe(lambda x: backbone.features(backbone.normalize(x)), 100), ["positive"] * n_features, []
    for i in range(n_images):
        pixels = backbone.to_pixels(samples[i]).numpy()
        found = explain_image(pixels, probe, n_samples=400, segmentation="slic", seed=i)
        fitted = found.fit(np.arange(n_features))
        masks = deletion_masks(fitted.effect, sides, n_removed=3, n_random=10, seed=i)
        perturber = ImagePerturber(pixels, found.segments, fill_image(pixels, found.segments))
        answers = probe.collect(lambda a, b, p=perturber, m=masks: p.compose(m[a:b]), len(masks))
        trusts += judge(sides, fitted, masks, (answers - found.activation)[:, :n_features])
    return trusts


def text_trusts(backbone, samples, n_texts: int = 4, n_features: int = 64) -> list:
    """Fit, agreement and deletion on the first sentences of 12 to 15 words, 300 perturbations."""
    probe, sides, trusts = (
        Probe(lambda t: backbone.features(backbone.encode(list(t))), 64),
        ["positive"] * n_features,
        [],
    )
    chosen = [text for text in map(str, samples) if 12 <= len(text.split()) <= 15][:n_texts]
    for i, text in enumerate(chosen):
        found = explain_texts([text], probe, [i], n_samples=300)[0]
        fitted = found.fit(np.arange(n_features))
        masks = deletion_masks(fitted.effect, sides, n_removed=3, n_random=10, seed=i)
        change = probe.texts(found.words.perturbed(masks)) - found.activation
        trusts += judge(sides, fitted, masks, change[:, :n_features])
    return trusts


def main() -> None:
    """Parse the arguments and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one, two = commands.add_parser("weights"), commands.add_parser("checks")
    for command in (one, two):
        command.add_argument("--weights", type=Path, default=Path("../shared/data/weights"), help="a folder")
    one.add_argument("--runs", type=Path, nargs="*", default=[], help="demo runs, with the network in demo/")
    one.add_argument("--seeds", type=int, default=3)
    one.set_defaults(call=weights)
    two.add_argument("--run", type=Path, required=True, help="a run of the digits demo")
    two.add_argument("--sentences", type=Path, default=Path("../shared/data/text/sst2_dev.tsv"))
    two.set_defaults(call=checks)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.call(options)


if __name__ == "__main__":
    main()
