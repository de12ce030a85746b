"""What a component does, for checks that hold for every kind, here and in another process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import import_module

from semcodec.testing.subject import MODULES, Act, Subject


def acts_of(subject: Subject) -> Sequence[Act]:
    """What a component of its kind does."""
    acts: Sequence[Act] = import_module(f"semcodec.testing.{MODULES[subject.component.kind]}").acts(subject)
    return acts


def digests(subject: Subject) -> dict[str, str]:
    """By act, what the first sample comes to."""
    return {act.what: hashlib.sha256(act.do(act.who, 0)).hexdigest() for act in acts_of(subject)}
