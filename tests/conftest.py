"""Tiny networks with real file layouts, built on the spot, for the tests of every room."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.browser import browser  # noqa: F401 (one browser for all tests)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a job in the background hands that down to its children
    signal.signal(signal.SIGINT, signal.default_int_handler)

WORDS = "a an the film was very good bad dull bright long short and not it i you saw liked hated never again".split()


def save_tokenizer(folder: Path, *, pad_id: int, max_length: int) -> int:
    """Save a whitespace tokenizer with [CLS] text [SEP]; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    special.insert(pad_id, "[PAD]")
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names).save_pretrained(folder)
    return len(vocabulary)


def save_language_model(folder: Path, kind: str, *, classifier: bool = True, n_labels: int = 3) -> Path:
    """Save a random model of a few thousand parameters: bert, roberta, distilbert or gpt2."""
    import torch
    import transformers as hf

    pad_id = 1 if kind == "roberta" else 0
    size = save_tokenizer(folder, pad_id=pad_id, max_length=10**30)
    common = {"vocab_size": size, "pad_token_id": pad_id, "num_labels": n_labels}
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    configs = {
        "bert": lambda: hf.BertConfig(**common, **shape, max_position_embeddings=20),
        "roberta": lambda: hf.RobertaConfig(**common, **shape, max_position_embeddings=22, type_vocab_size=1),
        "distilbert": lambda: hf.DistilBertConfig(
            **common, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=20
        ),
        "gpt2": lambda: hf.GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=20),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        auto = hf.AutoModelForSequenceClassification if classifier else hf.AutoModel
        network = auto.from_config(configs[kind]())
        for parameter in network.parameters():  # the usual initialization is so small that all texts look alike
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def language_model(tmp_path_factory):
    """Return a function (kind, classifier=True) -> folder of a tiny model, built once."""
    made: dict[tuple[str, bool], Path] = {}

    def get(kind: str, classifier: bool = True) -> Path:
        if (kind, classifier) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}{'' if classifier else '-encoder'}")
            made[kind, classifier] = save_language_model(folder, kind, classifier=classifier)
        return made[kind, classifier]

    return get


@pytest.fixture(scope="session")
def resnet18_weights(tmp_path_factory) -> Path:
    """A safetensors file with random torchvision resnet18 weights for 4 classes."""
    import torch
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = resnet18(weights=None, num_classes=4)
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def cifar_resnet_weights(tmp_path_factory) -> Path:
    """A file like the published CIFAR ResNet-20 checkpoints, with random weights."""
    import torch

    from debugnet.backbones.cifar_resnet import CifarResNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = CifarResNet(20)
    path = tmp_path_factory.mktemp("weights") / "resnet20.th"
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"state_dict": state, "best_prec1": 91.0}, path)
    return path


@pytest.fixture(scope="session")
def image_arrays(tmp_path_factory) -> Path:
    """An .npz of 40 train and 10 test pictures, 32 x 32, 4 classes."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(
        path,
        x_train=rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        y_train=np.arange(40) % 4,
        x_test=rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        y_test=np.arange(10) % 4,
    )
    return path


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """A TSV of 90 texts of 1 to 30 words, 3 classes."""
    rng = np.random.default_rng(1)
    path = tmp_path_factory.mktemp("data") / "reviews.tsv"
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 31))) for _ in range(90)]
    rows = [f"{'xyz'[i % 3]}\t{text}" for i, text in enumerate(texts)]
    path.write_text("\n".join(["label\tsentence", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """Keep tests out of the user's caches, and the user's caches out of the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
