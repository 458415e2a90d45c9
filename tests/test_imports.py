"""What importing debugnet costs and does: nothing heavy, nothing set."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "torch", "h5py", "scipy", "matplotlib", "sklearn", "transformers", "lime", "yaml", "tqdm")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["debugnet", "debugnet.cli.app", "debugnet.recipes", "debugnet.registry",
                                    "debugnet.errors", "debugnet.progress", "debugnet.interrupts"])  # fmt: skip
def test_light(module):
    assert run(f"import sys, {module}; print([n for n in {HEAVY!r} if n in sys.modules])") == "[]\n"


def test_importing_everything_changes_nothing():
    code = """
import importlib, logging, os, pkgutil, random, signal, sys, warnings
import numpy, torch, matplotlib, sklearn  # sklearn sets variables of its own for OpenMP
def state():
    return (dict(os.environ), random.getstate(), numpy.random.get_state()[1].tolist(), torch.initial_seed(),
            torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), matplotlib.get_backend(),
            logging.getLogger().handlers[:], list(warnings.filters)[:0], signal.getsignal(signal.SIGINT))
before = state()
import debugnet
ours = {}
for module in pkgutil.walk_packages(debugnet.__path__, "debugnet."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert not logging.getLogger("debugnet").handlers
after = state()
print([i for i, (a, b) in enumerate(zip(before, after)) if a != b])
"""
    assert run(code) == "[]\n"


def test_public_names_are_there():
    code = "import debugnet; print([n for n in debugnet.__all__ if getattr(debugnet, n, None) is None])"
    assert run(code) == "[]\n"


def test_unknown_name():
    import debugnet

    with pytest.raises(AttributeError, match="has no attribute 'fit_pth'"):
        _ = debugnet.fit_pth
