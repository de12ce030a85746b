"""What several modules of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For what is small: there several threads wait for each other more than they compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


DEVICES = ("cpu", "fakegpu", "cuda")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The CPU, a make-believe accelerator and a GPU; those that are not here are skipped, with the reason."""
    if request.param == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no GPU here that torch knows as cuda")
        yield torch.device("cuda:0")
    elif request.param == "cpu":
        import torch

        yield torch.device("cpu")
    else:
        yield request.getfixturevalue("fakegpu")


@pytest.fixture
def fakegpu() -> Iterator[torch.device]:
    """The make-believe accelerator, to which modules can be moved while this is used.

    Whoever uses it imports ``fake_accelerator`` at the top, as that says.
    """
    import fake_accelerator

    if isinstance(fake_accelerator.FOUND, str):
        pytest.skip(fake_accelerator.FOUND)
    with fake_accelerator.parameters_replaced():
        yield fake_accelerator.FOUND
