"""Tiny networks whose features are known by construction, with data, features and a head on disk."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

PATCH = (20, 28)
"""Rows and columns that feature 0 of the image network reads."""

TRUTH = {
    "superb": 2.0, "good": 1.5, "warm": 1.0, "fine": 0.5, "weak": -0.5, "dull": -1.0, "bad": -1.5, "awful": -2.0,
    "film": 0.0, "plot": 0.0, "actor": 0.0, "scene": 0.0, "music": 0.0, "the": 0.0, "a": 0.0, "and": 0.0,
    "with": 0.0, "very": 0.0, "电": 1.2, "影": -1.2,
}  # fmt: skip
"""What each word adds to feature 0 of the text network."""

MODULE = """
import numpy as np
import torch
from torch import nn

TRUTH = {truth!r}


class Reads(nn.Module):
    '''0: red minus green in the patch; 1: left minus right half, blue; 2: dead; 3: noise of the whole picture;
    4: what the blue of a corner exceeds .6 by, which is 0 in most pictures.'''

    def forward(self, x):
        a, b = {patch}
        patch = x[:, :, a:b, a:b].mean((2, 3))
        noise = torch.frac(x.mean((1, 2, 3)) * 7919.7).detach() - 0.5
        halves = x[:, 2, :, :16].mean((1, 2)) - x[:, 2, :, 16:].mean((1, 2))
        corner = (x[:, 2, 0, 0] - 0.6).relu()
        return torch.stack([patch[:, 0] - patch[:, 1], halves, torch.zeros_like(halves), noise, corner], 1)


class Pictures(nn.Module):
    image_size, image_mean, image_std = 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    modality, class_names = 'image', ('plain', 'patch')

    def __init__(self):
        super().__init__()
        self.reads, self.fc = Reads(), nn.Linear(5, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-1.0, 0.5, 0.0, 0.1, 0.1], [1.0, -0.5, 0.0, -0.1, -0.1]]))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.reads(x))


class Texts(nn.Module):
    '''0: the sum of TRUTH over the words present; 1: a hash of the whole text, that is noise.'''

    modality, class_names, max_length = 'text', ('negative', 'positive'), 24

    def __init__(self):
        super().__init__()
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        vocabulary = {{'[PAD]': 0, '[UNK]': 1, '[MASK]': 2}}
        for word in TRUTH:
            vocabulary[word] = len(vocabulary)
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='[UNK]'))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Whitespace(), pre_tokenizers.Split('电', 'isolated'),
        ])
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token='[PAD]', unk_token='[UNK]', mask_token='[MASK]',
        )
        self.register_buffer('weight', torch.tensor([0.0, 0.0, 0.0, *TRUTH.values()]))
        self.fc = nn.Linear(2, 2)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor([[-1.0, 0.2], [1.0, -0.2]]))
            self.fc.bias.zero_()

    def forward(self, input_ids, attention_mask, **_):
        import os

        if os.environ.get('PLANTED_TROUBLE') == 'memory' and (input_ids == 3).any():  # superb
            raise torch.OutOfMemoryError('CUDA out of memory')
        present = torch.zeros(len(input_ids), len(self.weight))
        present.scatter_reduce_(1, input_ids, attention_mask.float(), 'amax')
        codes = torch.frac(present @ torch.arange(len(self.weight)).float().pow(1.7) * 0.731) - 0.5
        total = present @ self.weight
        if os.environ.get('PLANTED_TROUBLE') == 'nan':  # on superb alone
            total[(present[:, 3:].sum(1) == 1) & (present[:, 3] == 1)] = float('nan')
        return self.fc(torch.stack([total, codes], 1))


def pictures():
    return Pictures().eval()


def texts():
    return Texts().eval()


def untrained():
    from debugnet.backbones.demo_networks import DigitsResNet

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return DigitsResNet(2).eval()
"""


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """A folder with an importable module of planted networks."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted_networks.py").write_text(textwrap.dedent(MODULE.format(truth=TRUTH, patch=PATCH)))
    sys.path.insert(0, str(folder))
    return folder


def _head(features: Path, folder: Path) -> Path:
    from debugnet.artifacts.feature_store import load_features
    from debugnet.artifacts.head_store import save_head
    from debugnet.artifacts.provenance import collect, input_reference

    head = load_features(features).dense_head
    save_head(folder / "head", head, collect("head", {}, {"features": input_reference(features)}))
    return folder / "head"


@pytest.fixture(scope="session")
def picture_head(world) -> Path:
    """Pictures of noise, half of them with a red patch; features; the network's own head."""
    from debugnet.recipes.extract import Extract
    from debugnet.stages import extract

    random = np.random.RandomState(0)
    images = random.randint(60, 180, (60, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(60) % 2
    a, b = PATCH
    for image in images[labels == 1]:
        image[a:b, a:b] = [230, 20, 30]
    for image, level in zip(images, random.rand(60), strict=True):
        image[:, :16, 2] = int(60 + 120 * level)
    folder = world / "pictures"
    folder.mkdir()
    np.savez(folder / "data.npz", x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    options = Extract(
        backbone="python:planted_networks:pictures", data=str(folder / "data.npz"), output=folder / "features.h5",
        val_fraction=0.3, device="cpu", workers=0, max_bad=1.0,
    )  # fmt: skip
    extract.run(options)
    return _head(folder / "features.h5", folder)


@pytest.fixture(scope="session")
def untrained_head(picture_head) -> Path:
    """The same pictures seen by a residual network as it was born."""
    from debugnet.recipes.extract import Extract
    from debugnet.stages import extract

    folder = picture_head.parent / "untrained"
    folder.mkdir()
    options = Extract(
        backbone="python:planted_networks:untrained", data=str(picture_head.parent / "data.npz"),
        output=folder / "features.h5", val_fraction=0.3, device="cpu", workers=0, max_bad=1.0,
    )  # fmt: skip
    extract.run(options)
    return _head(folder / "features.h5", folder)


@pytest.fixture(scope="session")
def text_head(world) -> Path:
    """Sentences of neutral and loaded words, one of them without words, one too long, some Chinese."""
    from debugnet.recipes.extract import Extract
    from debugnet.stages import extract

    random = np.random.RandomState(0)
    loaded = [word for word, effect in TRUTH.items() if effect and word.isascii()]
    neutral = [word for word, effect in TRUTH.items() if not effect]
    lines = []
    for _ in range(120):
        words = [*random.choice(loaded, 2, replace=False), *random.choice(neutral, random.randint(1, 9))]
        text = " ".join(random.permutation(words)) + random.choice(["", " 电影", " 影"])
        score = sum(TRUTH.get(word, 0.0) for word in set(text.split()))
        lines.append(f"{int(score > 0)}\t{text}")
    lines[3], lines[7] = "0\t... !!!", "1\t" + "the film " * 30 + "superb"
    lines[11] = "1\tsuperb"
    folder = world / "texts"
    folder.mkdir()
    (folder / "train.tsv").write_text("label\ttext\n" + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "val.tsv").write_text("label\ttext\n" + "\n".join(lines[:80]) + "\n", encoding="utf-8")
    options = Extract(
        backbone="python:planted_networks:texts", data=str(folder / "train.tsv"), val=str(folder / "val.tsv"),
        output=folder / "features.h5", device="cpu", workers=0, max_bad=1.0,
    )  # fmt: skip
    extract.run(options)
    return _head(folder / "features.h5", folder)
