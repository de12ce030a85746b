"""Old public paths work for one more release, and say where things are now."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from semcodec._moved import MODULES, NAMES


@pytest.mark.parametrize("old", MODULES)
def test_an_old_module_is_the_new_one(old):
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {MODULES[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(MODULES[old])
    assert module.__spec__.name == MODULES[old], "the new module stays what it is"


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_an_old_name_is_the_new_one(module, name):
    home, _, new = NAMES[module, name].partition(":")
    with pytest.warns(DeprecationWarning, match=f"{name} is now {home}.{new}"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(importlib.import_module(home), new)


def test_what_never_was_is_an_error_as_ever():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        importlib.import_module("semcodec.interfaces").nonsense  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("semcodec.nonsense")


def test_old_methods_of_encoders_are_taken_for_the_new_ones():
    from semcodec.interfaces import Encoder

    with pytest.warns(DeprecationWarning, match="code is now named forward_train"):

        class Old(Encoder):
            def encode(self, features, analysis, masks, params):
                return []

            def restore(self, latent):
                return None

            def code(self, features, rng):
                return "coded"

    assert Old().forward_train({}, None) == "coded"


def test_a_plugin_of_the_last_release_imports_as_it_did():
    code = "from semcodec import pixels; from semcodec.masks import write_mask; from semcodec.pixels import eight_bits"
    done = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    strict = [sys.executable, "-W", "error::DeprecationWarning", "-c", "import semcodec, semcodec.pipeline.pipeline"]
    done = subprocess.run(strict, capture_output=True, text=True)
    assert "semcodec" not in done.stderr.rpartition("Warning: ")[2], "the core itself uses no old path"
