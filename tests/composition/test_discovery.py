"""Plugins come from entry points; one that fails is a row in the list and never ends the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import pytest

from semcodec.component import API, Component
from semcodec.composition.discovery import Loaded, load_entry_points, load_plugins
from semcodec.composition.registry import Registry, get_registry
from semcodec.errors import PluginError, UsageError
from semcodec.hookspecs import GROUP, hookimpl

INSTALLED = Path(__file__).parents[1] / "helpers" / "installed"
ALL = sorted(path.name for path in INSTALLED.iterdir())


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Put fake installed distributions on the path and forget what was loaded."""

    def put(*names: str) -> None:
        for name in names:
            monkeypatch.syspath_prepend(str(INSTALLED / name))
        load_plugins.cache_clear()
        get_registry.cache_clear()

    known = set(sys.modules)
    yield put
    load_plugins.cache_clear()
    get_registry.cache_clear()
    for name in set(sys.modules) - known:
        if str(INSTALLED) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def reasons(loaded: Loaded) -> dict[str, str]:
    return {failure.distribution: failure.reason for failure in loaded.failures}


def fake(loaded: Loaded) -> dict[str, list[str]]:
    """Names by distribution, of the fakes only."""
    return {p.distribution: [c.name for c in p.components] for p in loaded.plugins if p.distribution != "semcodec"}


def test_every_failure_is_recorded_and_the_others_load(install):
    install(*ALL)
    loaded = load_plugins()
    assert reasons(loaded) == {
        "broken-codecs": "ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
        "endless-codecs": "endless_codecs yields more than the 1,000 components that a plugin may have",
        "exits-codecs": "SystemExit: os._exit(3)",
        "misspelt-codecs": reasons(loaded)["misspelt-codecs"],
        "newer-codecs": "future is made for plugin API 2, this semcodec has 1",
        "newer-field": "Component has no field 'qubits' in plugin API 1, of this semcodec: misspelt, or made for a "
        "newer one",
        "newer-import": "ImportError: cannot import name 'Wormhole' from 'semcodec.component' in plugin API 1, of this "
        "semcodec: misspelt, or made for a newer one",
        "quits-codecs": "SystemExit: this plugin leaves at once",
        "raises-codecs": "RuntimeError: no codecs today",
        "wrong-record": "semcodec_components yields Component records, not dict",
    }
    assert "unknown hook 'semcodec_component'" in reasons(loaded)["misspelt-codecs"]
    assert fake(loaded) == {
        "clash-codecs": ["good", "own"],
        "good-codecs": ["good", "late", "nameless"],
        "missing-codecs": ["needy", "needier"],
        "older-codecs": ["vintage"],
        "prints-codecs": ["chatty"],
    }
    broken = next(f for f in loaded.failures if f.distribution == "broken-codecs")
    assert isinstance(broken.error, ModuleNotFoundError)
    assert (broken.version, broken.entry_point) == ("2.0", "broken")


def test_a_failure_is_not_blamed_on_the_plugin_after_it(install):
    install("misspelt", "good")
    eps = {ep.dist.name: ep for ep in entry_points(group=GROUP)}
    loaded = load_entry_points([eps["misspelt-codecs"], eps["good-codecs"]])
    assert list(reasons(loaded)) == ["misspelt-codecs"]
    assert list(fake(loaded)) == ["good-codecs"]


def test_one_module_named_twice_is_a_failure_of_the_second(install):
    install("good")
    ep = next(ep for ep in entry_points(group=GROUP) if ep.dist.name == "good-codecs")
    loaded = load_entry_points([ep, ep])
    assert reasons(loaded) == {"good-codecs": "good_codecs is already loaded as good-codecs:toys; name it once"}
    assert len(loaded.plugins) == 1


def test_loaded_once_per_process(install, monkeypatch):
    install("good")
    first = load_plugins()
    monkeypatch.setattr("semcodec.composition.discovery.entry_points", lambda **_: pytest.fail("scanned again"))
    assert load_plugins() is first


def test_disabled_distributions_are_not_imported(install, monkeypatch):
    monkeypatch.setenv("SEMCODEC_DISABLE_PLUGINS", "Broken_Codecs, good.codecs")
    install("good", "broken", "clash")
    loaded = load_plugins()
    assert "broken-codecs" not in reasons(loaded)
    assert list(fake(loaded)) == ["clash-codecs"]
    assert "good_codecs" not in sys.modules


def test_strict_raises_with_the_original(install, monkeypatch):
    monkeypatch.setenv("SEMCODEC_STRICT_PLUGINS", "1")
    install("broken")
    with pytest.raises(PluginError, match=r"plugin 'broken' of broken-codecs 2\.0: ModuleNotFoundError") as caught:
        load_plugins()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"kind": "codec"}, "unknown kind"),
        ({"name": "Bad Name"}, "no name that a spec can hold"),
        ({"positional": "k"}, "which is no parameter"),
        ({"traits": {"targets": ("frames",)}}, "targets without a parameter of that name: frames"),
    ],
)
def test_a_record_that_cannot_work_is_refused(monkeypatch, bad, reason):
    record = Component(**{"kind": "encoder", "name": "x", "target": "m:C", "summary": ""} | bad)
    module = ModuleType("bad_record")
    module.semcodec_components = hookimpl(lambda: [record])
    monkeypatch.setitem(sys.modules, "bad_record", module)
    assert reason in reasons(load_entry_points([EntryPoint("bad", "bad_record", GROUP)]))["?"]


def test_rows_say_what_is_wrong_and_what_cures_it(install):
    install(*ALL)
    rows = {(r.distribution, r.name): r for r in Registry(load_plugins()).rows() if r.distribution != "semcodec"}
    ok = rows["good-codecs", "late"]
    assert (ok.kind, ok.status, ok.remedy, ok.version, ok.license) == ("encoder", "ok", "", "1.2", "Apache-2.0")
    for owner in ("good-codecs", "clash-codecs"):
        row = rows[owner, "good"]
        assert row.status == "clash"
        assert "clash-codecs 0.3 and good-codecs 1.2" in row.remedy
    assert rows["good-codecs", "good"].license == "MIT"
    needy = rows["missing-codecs", "needy"]
    assert (needy.status, needy.remedy) == ("missing", "pip install 'semcodec[learned]'")
    assert rows["missing-codecs", "needier"].remedy == "pip install a_module_that_nobody_has"
    broken = rows["broken-codecs", "broken"]
    assert (broken.kind, broken.status) == (None, "broken")
    assert "a_module_that_nobody_has" in broken.summary
    assert broken.remedy == "pip install -U broken-codecs, or set SEMCODEC_DISABLE_PLUGINS=broken-codecs"
    for newer in (("newer-codecs", "newer"), ("newer-field", "quantum"), ("newer-import", "wormhole")):
        remedy = f"pip install -U semcodec, or set SEMCODEC_DISABLE_PLUGINS={newer[0]}"
        assert (rows[newer].status, rows[newer].remedy) == ("broken", remedy)


def test_a_clash_is_an_error_on_use_alone(install, monkeypatch):
    install("good", "clash")
    registry = get_registry()
    assert registry.find("own").name == "own"
    with pytest.raises(PluginError, match=r"encoder 'good' is claimed by clash-codecs 0\.3 and good-codecs 1\.2"):
        registry.find("good")
    monkeypatch.setenv("SEMCODEC_DISABLE_PLUGINS", "clash-codecs")  # the remedy that the message names
    install()
    assert get_registry().origin(get_registry().find("good")) == ("good-codecs", "1.2")


def test_load_imports_on_use(install):
    install("good", "missing")
    registry = get_registry()
    assert registry.load(registry.find("good")).__name__ == "Good"
    with pytest.raises(PluginError, match="late cannot be loaded from good_codecs_absent:Late") as caught:
        registry.load(registry.find("late"))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(PluginError, match="AttributeError"):
        registry.load(registry.find("nameless"))
    with pytest.raises(PluginError, match=r"needy needs .*: pip install 'semcodec\[learned\]'"):
        registry.load(registry.find("needy"))


def test_a_plugin_for_an_older_contract_is_used_as_any(install):
    install("older")
    registry = get_registry()
    vintage = registry.find("vintage")
    assert vintage.api == API - 1
    assert registry.load(vintage)(level=2).level == 2
    [row] = [row for row in registry.rows() if row.distribution == "older-codecs"]
    assert (row.status, row.remedy) == ("ok", "")


def test_the_command_line_works_beside_every_broken_plugin():
    """One process, as a user has it: each is named with its remedy, and a pipeline of others composes."""
    path = [str(Path(__file__).parents[2]), *sys.path, *(str(INSTALLED / name) for name in ALL)]
    code = (
        "from semcodec.cli import main\n"
        "main(['plugins', 'list'], standalone_mode=False)\n"
        "main(['compose', 'jpeg:40+vit-nano', '--dry-run'], standalone_mode=False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "SEMCODEC_STRICT_PLUGINS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("broken", "newer", "quantum", "wormhole", "misspelt", "quits", "raises", "wrong", "endless", "exits"):
        assert f"{name}: pip install -U " in done.stdout
    assert "good: claimed by clash-codecs 0.3 and good-codecs 1.2" in done.stdout
    assert "needy: pip install 'semcodec[learned]'" in done.stdout
    assert "backbone   vit-nano" in done.stdout


def test_prints_of_plugins_are_no_part_of_what_a_command_says(install, capsys):
    install("prints")
    registry = get_registry()
    registry.load(registry.find("chatty"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["hello from a plugin", "and from its hook", "hello from its class"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.parametrize("wait", ["while True: pass", "while True:\n  try: time.sleep(9)\n  except Exception: pass"])
def test_a_plugin_that_never_ends_is_given_up(monkeypatch, tmp_path, wait):
    monkeypatch.setattr("semcodec.composition.supervision.SECONDS", 0.2)
    (tmp_path / "waits_codecs.py").write_text(f"import time\n{wait}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        assert reasons(load_entry_points([EntryPoint("waits", "waits_codecs", GROUP)]))["?"] == "not loaded after 0.2 s"
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 0.4  # another's alarm still comes when it was due
        time.sleep(0.5)
        assert rung == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_a_plugin_keeps_of_exit_still_ends_what_is_not_loading(install):
    leave = os._exit
    install("exits")
    load_plugins()
    assert os._exit is leave


def test_a_fault_outside_python_names_the_plugin(tmp_path):
    (tmp_path / "faulty_codecs.py").write_text("import ctypes\nctypes.string_at(0)\n")
    code = (
        "from importlib.metadata import EntryPoint\n"
        "from semcodec.composition.discovery import load_entry_points\n"
        "load_entry_points([EntryPoint('faulty', 'faulty_codecs', 'semcodec')])"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), str(tmp_path)])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode
    assert b"faulty_codecs.py" in done.stderr


def test_unknown_names_suggest():
    component = Component("encoder", "aecnn", "m:C", "")
    twin = Component("selector", "aecnn", "m:C", "")
    registry = Registry.of([component, Component("backbone", "vit-base", "m:C", "")])
    with pytest.raises(UsageError, match=r"unknown component 'vit-bass': did you mean vit-base\?"):
        registry.find("vit-bass")
    with pytest.raises(UsageError, match="there are aecnn, vit-base"):
        registry.find("zzz")
    with pytest.raises(UsageError, match="'aecnn' is no backbone but of kind encoder"):
        registry.find("aecnn", "backbone")
    with pytest.raises(UsageError, match="ambiguous: write encoder/aecnn or selector/aecnn"):
        Registry.of([component, twin]).find("aecnn")
    assert Registry.of([component, twin]).find("aecnn", "selector") is twin


def test_unknown_names_point_at_broken_plugins(install):
    install("broken")
    with pytest.raises(UsageError, match="plugins failed to load: broken-codecs; see 'semcodec plugins list'"):
        get_registry().find("zzz")


def test_importing_the_core_is_light():
    code = (
        "import sys, semcodec.composition.composition; print(*{'numpy', 'torch', 'timm', 'click'} & set(sys.modules))"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
