"""The two small networks of the embedded demonstrations, and how they are trained on the spot."""

from __future__ import annotations

import math
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debugnet.backbones.cifar_resnet import CifarResNet
from debugnet.progress import track

DIGITS_FACTORY = "debugnet.backbones.demo_networks:DigitsResNet"
#: Deep features of the reviews network.
REVIEWS_FEATURES = 64


class DigitsResNet(CifarResNet):
    """An 8-layer residual network for the demonstration's 32 x 32 digits; 64 features.

    Parameters
    ----------
    num_classes : int
        Outputs.
    """

    modality = "image"
    image_size = 32
    image_mean = (0.25, 0.25, 0.25)
    image_std = (0.35, 0.35, 0.35)

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(8, num_classes)


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed torch and use one thread, inside the block only.

    One thread makes the weights independent of the number of cores.  It costs little at this size, and on a busy
    machine two threads that wait for each other take several times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _epochs(n_samples: int, batch_size: int, epochs: int, seed: int, label: str) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (share of the training done, rows of a batch), shuffled anew in every epoch."""
    order = np.random.default_rng(seed)
    batches = math.ceil(n_samples / batch_size)
    for step in track(range(epochs * batches), label=label, unit="batch"):
        if step % batches == 0:
            shuffled = order.permutation(n_samples)
        yield step / (epochs * batches), shuffled[(step % batches) * batch_size : (step % batches + 1) * batch_size]


def _one_cycle(done: float) -> float:
    """Learning-rate factor: up linearly over the first fifth, down to 0 along a cosine."""
    return done / 0.2 if done < 0.2 else 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))


def normalized_digits(images: np.ndarray) -> Tensor:
    """Turn images (n, 32, 32, 3) uint8 into the input (n, 3, 32, 32) float32 of :class:`DigitsResNet`."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (DigitsResNet.image_mean, DigitsResNet.image_std))
    return ((pixels - mean) / std).contiguous()


def train_digits(images: np.ndarray, labels: np.ndarray, *, epochs: int = 10, seed: int = 0) -> DigitsResNet:
    """Train a :class:`DigitsResNet` by SGD with momentum, one-cycle learning rate, weight decay 5e-4.

    Parameters
    ----------
    images : ndarray (n, 32, 32, 3), uint8
        Train images.
    labels : ndarray (n,), int64
        Classes 0 to 9.
    epochs : int
        Passes over the data.
    seed : int
        Same seed, same machine: same weights, whatever the number of cores.

    Returns
    -------
    DigitsResNet
        In eval mode.
    """
    eraser = np.random.default_rng(seed + 1)
    with _reproducible(seed):
        network = DigitsResNet().train()
        x, y = normalized_digits(images), torch.from_numpy(labels)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        for done, rows in _epochs(len(y), 64, epochs, seed, "training the digits network"):
            optimizer.param_groups[0]["lr"] = 0.1 * _one_cycle(done)
            optimizer.zero_grad()
            loss: Any = F.cross_entropy(network(_erased(x[rows], eraser)), y[rows])
            loss.backward()
            optimizer.step()
    return network.eval()


def _erased(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Black out one random rectangle of 8 to 24 pixels a side in every second image of a batch (in place).

    Random erasing (Zhong et al. 2017).  It keeps the digits from being so easy that the network has no use for a
    shortcut.
    """
    black = normalized_digits(np.zeros((1, 1, 1, 3), dtype=np.uint8))[0]
    for i in np.flatnonzero(rng.random(len(x)) < 0.5):
        image = x[i]
        height, width = rng.integers(8, 25, size=2)
        top, left = rng.integers(0, x.shape[2] - height + 1), rng.integers(0, x.shape[3] - width + 1)
        image[:, top : top + height, left : left + width] = black
    return x


@torch.no_grad()
def predict_digits(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the class (n,) int64 that the network gives images (n, 32, 32, 3) uint8."""
    batches = torch.split(normalized_digits(images), 256)
    return np.concatenate([network(batch).argmax(dim=1).numpy() for batch in batches])


def train_word_pieces(texts: Sequence[str], *, vocabulary_size: int = 1000, max_length: int = 64) -> Any:
    """Make a lower-casing WordPiece tokenizer from ``texts``: their most frequent words, and letters for the rest.

    The vocabulary is counted here because the library's WordPiece trainer breaks ties by the order of a hash table,
    so that no two runs agree.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        With BERT's special tokens and template.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    known = string.ascii_lowercase + string.digits + string.punctuation
    letters = sorted({letter for word in counts for letter in word} | set(known))
    words = sorted((word for word in counts if len(word) > 1), key=lambda word: (-counts[word], word))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + letter for letter in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(pieces[:vocabulary_size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, splitter, decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length)


def train_reviews(
    texts: Sequence[str],
    tags: np.ndarray,
    tokenizer: Any,
    class_names: Sequence[str],
    *,
    epochs: int = 4,
    seed: int = 0,
) -> nn.Module:
    """Train a two-layer BERT to tell the tags of reviews, from nothing.

    Feature j of the pooled output learns tag ``j % n_tags`` by squared error (AdamW, one-cycle learning rate), so that
    the features stand for many things, several for each.  The decision layer stays as it is drawn:
    :func:`fit_reviews_layer` fits it.

    Parameters
    ----------
    texts : sequence of str
    tags : ndarray (n, n_tags), float32
        0 or 1, from :func:`debugnet.data.reviews_grammar.tag_reviews`.
    tokenizer : transformers.PreTrainedTokenizerFast
        From :func:`train_word_pieces`.
    class_names : sequence of str
        Of the decision layer; written into the configuration.
    epochs, seed : int
        As in :func:`train_digits`.

    Returns
    -------
    transformers.BertForSequenceClassification
        In eval mode.
    """
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=REVIEWS_FEATURES,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        hidden_dropout_prob=0.0,  # so few steps underfit rather than overfit
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(class_names)),
        label2id={name: k for k, name in enumerate(class_names)},
    )
    with _reproducible(seed):
        network: Any = BertForSequenceClassification(config).train()
        optimizer = torch.optim.AdamW(network.bert.parameters(), lr=3e-3, weight_decay=0.01)
        targets = torch.from_numpy(tags)[:, torch.arange(REVIEWS_FEATURES) % tags.shape[1]]
        encoded = tokenizer(list(texts), truncation=True)["input_ids"]
        for done, rows in _epochs(len(texts), 64, epochs, seed, "training the reviews network"):
            optimizer.param_groups[0]["lr"] = 3e-3 * _one_cycle(done)
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in rows]}, return_tensors="pt")
            optimizer.zero_grad()
            loss: Any = F.mse_loss(network.bert(**batch).pooler_output, targets[rows])
            loss.backward()
            optimizer.step()
    trained: nn.Module = network.eval()
    return trained


@torch.no_grad()
def fit_reviews_layer(network: nn.Module, tokenizer: Any, texts: Sequence[str], labels: np.ndarray) -> None:
    """Fit the network's decision layer on its features: logistic regression, in place.

    Parameters
    ----------
    network : transformers.BertForSequenceClassification
        From :func:`train_reviews`.
    tokenizer : transformers.PreTrainedTokenizerFast
    texts, labels : sequence of str, ndarray (n,) int64
        Train reviews and their classes, 0 or 1.
    """
    from sklearn.linear_model import LogisticRegression

    bert: Any = network.bert
    features = np.concatenate([bert(**batch).pooler_output.numpy() for batch in _text_batches(tokenizer, texts)])
    fitted = LogisticRegression(max_iter=1000).fit(features.astype(np.float64), labels)
    layer: Any = network.classifier
    half = torch.from_numpy(np.vstack([-fitted.coef_, fitted.coef_]) / 2)
    layer.weight.copy_(half)
    layer.bias.copy_(torch.tensor([-0.5, 0.5]) * float(fitted.intercept_[0]))


def _text_batches(tokenizer: Any, texts: Sequence[str]) -> Iterator[Any]:
    for start in range(0, len(texts), 256):
        yield tokenizer(list(texts[start : start + 256]), truncation=True, padding=True, return_tensors="pt")


@torch.no_grad()
def score_reviews(network: nn.Module, tokenizer: Any, texts: Sequence[str]) -> np.ndarray:
    """Return the logits (n, K) float32 of ``texts``."""
    return np.concatenate([network(**batch).logits.numpy() for batch in _text_batches(tokenizer, texts)])
