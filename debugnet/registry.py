"""Names a user can type, each resolved to its code only when it is used.

A registry maps a name to ``"module:Object"`` and one line of help, so that
``debugnet list`` and ``--help`` never import torch.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from debugnet.errors import UsageError


class Entry(NamedTuple):
    """One registered name."""

    target: str
    summary: str


class Registry:
    """A lazily resolved name table; registering a name twice raises.

    Parameters
    ----------
    kind : str
        What the names are, in the singular, for error messages ("solver").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: str, summary: str) -> None:
        """Register ``name`` for ``target`` ("package.module:Object")."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice: {self._entries[name].target} and {target}")
        self._entries[name] = Entry(target, summary)

    def target(self, name: str) -> str:
        """Return the "package.module:Object" behind ``name`` without importing it.

        Raises
        ------
        UsageError
            If the name is unknown; the message lists the close and the known names.
        """
        if name not in self._entries:
            close = difflib.get_close_matches(name, self._entries, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise UsageError(f"unknown {self.kind} '{name}': {hint}known: {', '.join(self._entries)}")
        return self._entries[name].target

    def load(self, name: str) -> Any:
        """Import and return the object behind ``name``; unknown names raise as in :meth:`target`."""
        module, _, attribute = self.target(name).partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Yield (name, entry) in the order of registration."""
        return iter(self._entries.items())


# One line per name a user can type.  Keep each block in the order users should meet it.
BACKBONES = Registry("backbone")
#: torchvision.models.list_models(), written out because asking torchvision costs seconds; a test compares.
_TORCHVISION_NAMES = """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161 densenet169
    densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4 efficientnet_b5
    efficientnet_b6 efficientnet_b7 efficientnet_v2_l efficientnet_v2_m efficientnet_v2_s googlenet inception_v3
    maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
    regnet_x_16gf regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
    regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf
    regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d resnext101_64x4d
    resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0
    squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16
    vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
""".split()
for _name in _TORCHVISION_NAMES:
    BACKBONES.add(_name, "debugnet.backbones.torchvision_models:load", "torchvision, ImageNet weights or a file")
for _depth in (20, 32, 44, 56, 110):
    _name = f"cifar_resnet{_depth}"
    BACKBONES.add(_name, "debugnet.backbones.cifar_resnet:load", "CIFAR ResNet (He et al. 2016), weights from a file")
BACKBONES.add("hugging-face", "debugnet.backbones.hugging_face:load", "FOLDER or ID[@REVISION] of a text model")
BACKBONES.add("python", "debugnet.backbones.python_factory:load_python", "python:package.module:factory, any Module")
BACKBONES.add("network-folder", "debugnet.backbones.python_factory:load_folder", "FOLDER with debugnet_network.json")
DATASETS = Registry("dataset")
DATASETS.add("image-folder", "debugnet.data.image_folder:load", "one folder per class, in train/ val/ test/ or alone")
DATASETS.add("described", "debugnet.data.described:load", "a folder with debugnet_data.json, as train-demo writes")
DATASETS.add("image-zip", "debugnet.data.image_zip:load", "a zip file of that layout, streamed")
DATASETS.add("npz", "debugnet.data.arrays:load", "arrays x_train, y_train, x_test, y_test, or images, labels")
DATASETS.add("table", "debugnet.data.tables:load", "text in CSV, TSV, JSON Lines or Parquet, by named columns")
DATASETS.add("torchvision", "debugnet.data.torchvision_sets:load", "torchvision:NAME, a torchvision data set by name")
DATASETS.add("demo-digits", "debugnet.data.demo_digits:load", "demo:digits, handwritten digits with a planted shortcut")
DATASETS.add("demo-reviews", "debugnet.data.demo_reviews:load", "demo:reviews, generated reviews with a planted word")
PENALTIES = Registry("penalty")
PENALTIES.add("elastic_net", "debugnet.glm.penalties:ElasticNet", "per coefficient: each class picks its own features")
PENALTIES.add("group_lasso", "debugnet.glm.penalties:GroupLasso", "per feature over all classes: they share features")
SOLVERS = Registry("solver")
SOLVERS.add(
    "prox-newton",
    "debugnet.glm.solvers.prox_newton:ProxNewton",
    "proximal Newton on the support: fastest on a CPU for penalties per coefficient",
)
SOLVERS.add(
    "group-newton",
    "debugnet.glm.solvers.group_newton:GroupNewton",
    "proximal Newton on the features that take part: fastest on a CPU for group_lasso",
)
SOLVERS.add(
    "gram",
    "debugnet.glm.solvers.gram:Gram",
    "gaussian, per coefficient: one pass over the data for all lambdas",
)
SOLVERS.add("fista", "debugnet.glm.solvers.fista:Fista", "accelerated proximal gradient: every family and option")
SOLVERS.add("saga", "debugnet.glm.solvers.saga:Saga", "minibatch SAGA, Algorithm 1 of the paper")
EXPLAINERS = Registry("explainer")
EXPLAINERS.add("lime-image", "debugnet.explain.lime_image:explain_image", "LIME on superpixels, all features at once")
EXPLAINERS.add("lime-text", "debugnet.explain.lime_text:explain_texts", "LIME on words, all features at once")
EXPLAINERS.add("word-cloud", "debugnet.explain.word_cloud:draw_word_cloud", "mean word effects over many texts")
EXPLAINERS.add("prototypes", "debugnet.explain.prototypes:extreme_samples", "samples of highest and lowest activation")
EXPLAINERS.add("visualization", "debugnet.explain.feature_visualization:visualize_features", "optimized images")
STAGES = Registry("stage")

STAGES.add("train-demo", "debugnet.stages.train_demo:run", "Make data with a planted shortcut and a network on it.")
STAGES.add("extract", "debugnet.stages.extract:run", "Run a network over a data set and store its deep features.")
STAGES.add("fit-path", "debugnet.stages.fit_path:run", "Fit a sparse decision layer along a regularization path.")
STAGES.add("train-sparse", "debugnet.stages.train_sparse:run", "Train a network that uses few inputs or weights.")
STAGES.add("select", "debugnet.stages.select:run", "Choose the sparsest layer of a path that is accurate enough.")
STAGES.add("analyze", "debugnet.stages.analyze:run", "Show what a sparse layer uses, and how much depends on it.")
STAGES.add("predict", "debugnet.stages.predict:run", "Classify samples and say which features decided.")
STAGES.add("diagnose", "debugnet.stages.diagnose:run", "Find the features behind the errors, and the suspects.")
STAGES.add("pairs", "debugnet.stages.pairs:run", "Compare pairs of classes: confusion, overlap, shared features.")
STAGES.add("explain", "debugnet.stages.explain:run", "Show what the features of a sparse layer read.")
STAGES.add("counterfactual-text", "debugnet.stages.counterfactual_text:run", "Swap words and see decisions flip.")
STAGES.add("counterfactual-image", "debugnet.stages.counterfactual_image:run", "Put a pattern into images.")
STAGES.add("bias", "debugnet.stages.bias:run", "Measure the share of a word list in what the features hear.")
STAGES.add("edit", "debugnet.stages.edit:run", "Change weights of a head and audit the effect.")
STAGES.add("diff", "debugnet.stages.diff:run", "Compare two heads.")
STAGES.add("stability", "debugnet.stages.stability:run", "Count how often resamples select each weight.")
STAGES.add("study-make", "debugnet.stages.study_make:run", "Make the pages and the key of a human study.")
STAGES.add("study-score", "debugnet.stages.study_score:run", "Score the answers to a study.")
STAGES.add("study-simulate", "debugnet.stages.study_simulate:run", "Answer a study by machine, to try its design.")
STAGES.add("report", "debugnet.stages.report:run", "Write a page of all of it that opens without a network.")
STAGES.add("run", "debugnet.stages.run_recipe:run", "Run all stages of a recipe into one folder.")
STAGES.add("inspect", "debugnet.stages.inspect:run", "Describe an artefact: what it is and what it was made from.")
STAGES.add("list", "debugnet.stages.list:run", "List backbones, datasets, penalties, solvers or explainers.")
