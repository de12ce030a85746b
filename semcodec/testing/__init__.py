"""Conformance checks for components: one's own, a colleague's, those that ship here.

    >>> from semcodec.testing import check_component
    >>> check_component(my_record)                  # raises CheckFailed at the first promise that is not kept

or, under pytest, one test for every check ::

    @parametrize_with_checks([my_encoder, my_recoverer])
    def test_my_components(check):
        check()

A check is a plain function of a component. It fails by raising ``CheckFailed``, an AssertionError. Components need
not be installed: companions (an entropy stage, a backbone) come from the registry of what is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from semcodec.component import Component
from semcodec.registry import Registry, get_registry, missing
from semcodec.testing.subject import CheckFailed, Subject

__all__ = ["Check", "CheckFailed", "check_component", "checks_for", "parametrize_with_checks"]

MODULES = {
    "backbone": "backbones",
    "encoder": "encoders",
    "entropy": "entropy",
    "recoverer": "recoverers",
    "selector": "selectors",
}


@dataclass(frozen=True, eq=False)
class Check:
    """One check of one component. Calling it returns None or raises CheckFailed."""

    name: str
    subject: Subject
    function: Callable[[Subject], None]

    def __call__(self) -> None:
        where = f"{self.subject}: {self.name}"
        try:
            self.function(self.subject)
        except CheckFailed as failure:
            raise CheckFailed(f"{where}: {failure}") from failure.__cause__
        except Exception as error:
            raise CheckFailed(f"{where}: raises {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.subject.component.kind}/{self.subject.component.name}-{self.name}"


def checks_for(component: Component, *, registry: Registry | None = None) -> list[Check]:
    """The checks of a component's kind, in the order in which a failure is best understood.

    registry: where companions are looked up; what is installed, and the component itself, if left out.
    """
    registry = registry or _around(component)
    if component.name.endswith("/*"):  # a family stands or falls with the member that it names
        member = component.name.replace("*", component.traits["example"])
        component = registry.find(member, component.kind)
    subject = Subject(component, registry)
    return [Check(function.__name__, subject, function) for function in _functions(component)]


def check_component(
    component: Component, *, registry: Registry | None = None, expected_failures: Mapping[str, str] | None = None
) -> None:
    """Run every check. Raises CheckFailed at the first that fails, naming component and check.

    expected_failures: {check name: reason} of checks that are known to fail; one of them that passes is a failure
    too, so that the list stays true.
    """
    expected = dict(expected_failures or {})
    checks = checks_for(component, registry=registry)
    _known(expected, checks)
    for check in checks:
        if check.name not in expected:
            check()
            continue
        try:
            check()
        except CheckFailed:
            continue
        raise CheckFailed(f"{check.subject}: {check.name}: passes, and is expected to fail: {expected[check.name]}")


def parametrize_with_checks(
    components: Iterable[Component],
    *,
    registry: Registry | None = None,
    expected_failures: Callable[[Component], Mapping[str, str]] | None = None,
) -> Any:
    """Pytest decorator of a test that takes ``check`` and calls it: one test for each check of each component.

    expected_failures: gives {check name: reason} for a component; those are strict xfails. A component whose
    optional dependency is not installed is skipped with the cure.
    """
    import pytest

    rows = []
    for component in components:
        cure = missing(component)
        expected = dict(expected_failures(component)) if expected_failures else {}
        checks = checks_for(component, registry=registry)
        _known(expected, checks)
        for check in checks:
            marks = [pytest.mark.skip(reason=cure)] if cure else []
            if check.name in expected:
                marks.append(pytest.mark.xfail(reason=expected[check.name], strict=True, raises=CheckFailed))
            rows.append(pytest.param(check, id=str(check), marks=marks))
    return pytest.mark.parametrize("check", rows)


def _functions(component: Component) -> Iterator[Callable[[Subject], None]]:
    for module in ("records", MODULES.get(component.kind)):
        if module:
            yield from import_module(f"semcodec.testing.{module}").checks(component)


def _known(expected: Mapping[str, str], checks: Iterable[Check]) -> None:
    names = [check.name for check in checks]
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise ValueError(f"no check is called {unknown[0]!r}; there are {', '.join(names)}")


def _around(component: Component) -> Registry:
    """What is installed, with ``component`` in the place of any other of its kind and name."""
    installed = get_registry()
    if any(one is component for one in installed):
        return installed
    key = component.kind, component.name
    return Registry.of([*(one for one in installed if (one.kind, one.name) != key), component])
