"""Hugging Face sequence classifiers and encoders, from a folder or an id, without remote code."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from debugnet.backbones.source import NetworkSource
from debugnet.backbones.spec import BackboneSpec
from debugnet.backbones.weights_files import sniff_format
from debugnet.errors import InputError, UsageError
from debugnet.registry import BACKBONES

#: These count positions from padding_idx + 1, so that two of max_position_embeddings are never used.
_OFFSET_POSITIONS = (
    "camembert data2vec-text ibert longformer mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
).split()
#: Embedding tables are often padded to a round size; a tokenizer shorter than this is not the network's.
_SMALLEST_VOCABULARY_SHARE = 0.99
#: transformers writes 1e30 where a tokenizer knows no limit.
_NO_LIMIT = 1_000_000


def load(spec: BackboneSpec, *, online: bool = False) -> NetworkSource:
    """Load a sequence classifier, or the bare encoder when a pooling (and no layer) is chosen.

    Parameters
    ----------
    spec : BackboneSpec
        ``name`` is a folder, an id, or id@revision.
    online : bool
        Whether missing files may be downloaded.

    Raises
    ------
    InputError
        If the checkpoint is missing or damaged, its head would be freshly initialised, or the
        tokenizer's vocabulary is not the network's.
    """
    folder = spec.local_folder
    name, _, revision = spec.name.partition("@")
    if spec.weights is not None:  # with a name that is no folder, the name is the likelier mistake
        if folder is None:
            raise InputError(_unknown(name))
        raise UsageError(f"--weights {spec.weights}: a Hugging Face folder or id brings its own weights; drop it")
    if folder is not None:
        name, revision = str(folder), ""
        _check_folder(folder)
    options: dict[str, Any] = {"local_files_only": not online, "trust_remote_code": False}
    options |= {"revision": revision} if revision else {}
    with _quiet(), _translated(name, online), torch.random.fork_rng(devices=[]):
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(name, **options)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        classes = any("ForSequenceClassification" in a for a in config.architectures or ())
        is_encoder = spec.pooling is not None and spec.layer is None or (spec.layer is not None and not classes)
        network = _load_network(name, options, spec, is_encoder)
    _check_tokenizer(tokenizer, config, name)
    if tokenizer.pad_token is None:  # GPT-2 and its kin: any token does, the attention mask hides it
        tokenizer.pad_token = tokenizer.eos_token
        config.pad_token_id = network.config.pad_token_id = tokenizer.pad_token_id
    return NetworkSource(
        network.float(),
        "text",
        class_names=None if is_encoder else _class_names(config),
        tokenizer=tokenizer,
        max_length=_max_length(spec, config, tokenizer),
        is_encoder=is_encoder,
    )


def _load_network(name: str, options: dict[str, Any], spec: BackboneSpec, is_encoder: bool) -> Any:
    from transformers import AutoModel, AutoModelForSequenceClassification

    builder = AutoModel if is_encoder else AutoModelForSequenceClassification
    network, report = builder.from_pretrained(name, output_loading_info=True, **options)
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if is_encoder and spec.pooling != "pooler":
        missing = [key for key in missing if "pooler" not in key]  # random, but nothing reads it
    if not missing:
        return network
    named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
    if is_encoder:
        raise InputError(
            f"{name}: {len(missing)} weights are missing and would be random ({named}); choose another "
            "--pool, or a complete checkpoint"
        )
    raise InputError(
        f"{name}: its classification head is missing and would be random ({named}); give a fine-tuned classifier, "
        "or use it as an encoder with --pool cls, mean or pooler"
    )


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise InputError(
            f"--backbone {folder}: neither a Hugging Face model (no config.json) nor a debugnet network "
            "(no debugnet_network.json)"
        )
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin") and path.stem.startswith(("model", "pytorch_model")):
            sniff_format(path)


def _check_tokenizer(tokenizer: Any, config: Any, name: str) -> None:
    expected = getattr(config, "vocab_size", None)
    # A tokenizer whose vocabulary file was not found is silently built with five special tokens.
    if expected is not None and not _SMALLEST_VOCABULARY_SHARE * expected <= len(tokenizer) <= expected:
        raise InputError(
            f"{name}: the tokenizer knows {len(tokenizer)} tokens, the network {expected}; put the tokenizer files "
            "that the network was trained with (tokenizer.json, or vocab.txt …) into its folder"
        )


def _max_length(spec: BackboneSpec, config: Any, tokenizer: Any) -> int:
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < _NO_LIMIT else []
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        limits.append(positions - 2 * (config.model_type in _OFFSET_POSITIONS))
    limit = min(limits, default=None)
    if spec.max_length is None:
        return limit or 512
    if limit is not None and spec.max_length > limit:
        raise UsageError(f"--max-length {spec.max_length}: {spec.name} reads at most {limit} tokens")
    return spec.max_length


def _class_names(config: Any) -> tuple[str, ...] | None:
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    generic = all(name == f"LABEL_{i}" for i, name in enumerate(names))
    return None if generic else names


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the bars and the log of transformers while a model loads; we check and report ourselves."""
    from transformers.utils import logging

    verbosity, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


@contextmanager
def _translated(name: str, online: bool) -> Iterator[None]:
    """Turn what transformers raises into one line with a way out."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except SafetensorError as error:
        raise InputError(f"{name}: its weights are truncated or damaged ({error}); download them again") from error
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, TypeError, AttributeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if Path(name).is_dir():
            raise InputError(f"{name}: not loadable as a Hugging Face model ({reason})") from error
        if online:
            raise InputError(f"--backbone {name}: {reason}") from error
        raise InputError(_unknown(name)) from error


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, list(BACKBONES), n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    return (
        f"--backbone {name}: no torchvision or CIFAR network of that name{hint}, no such folder, and no complete "
        "Hugging Face model of that id on this machine: add --online to download it, or give its folder"
    )
