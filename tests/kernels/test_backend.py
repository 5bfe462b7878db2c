# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from fewlabel.kernels import backend

FORMS = ("cpu", "reference")


def test_auto_takes_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backend.ENVIRONMENT_VARIABLE, raising=False)
    assert backend.resolve("op", "cpu", available=FORMS) == "cpu"
    assert backend.resolve("op", torch.device("cpu"), "reference", available=FORMS) == "reference"


def test_environment_replaces_auto_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.ENVIRONMENT_VARIABLE, "Reference")
    assert backend.resolve("op", "cpu", available=FORMS) == "reference"
    assert backend.resolve("op", "cpu", "cpu", available=FORMS) == "cpu"
    monkeypatch.setenv(backend.ENVIRONMENT_VARIABLE, "auto")
    assert backend.resolve("op", "cpu", available=FORMS) == "cpu"


def test_missing_backend_names_what_exists() -> None:
    with pytest.raises(ValueError, match=r"backend='triton': no such backend for op on cuda.* auto, cpu, reference"):
        backend.resolve("op", "cuda:0", "triton", available=FORMS)


def test_environment_is_a_preference_of_which_an_operator_may_have_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A loss made of two operators runs although only one of them has the backend; a slip of the pen does not."""
    monkeypatch.setenv(backend.ENVIRONMENT_VARIABLE, "cpu")
    assert backend.resolve("tiled operator", "cuda", available=("triton", "cpu")) == "cpu"
    with caplog.at_level(logging.WARNING, logger=backend.__name__):
        for _ in range(2):
            assert backend.resolve("compiled operator", "cuda", available=("triton", "reference")) == "triton"
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "FEWLABEL_BACKEND=cpu: no such backend for compiled operator on cuda, which takes triton"
    ]
    monkeypatch.setenv(backend.ENVIRONMENT_VARIABLE, "tirton")
    with pytest.raises(ValueError, match="FEWLABEL_BACKEND='tirton': expected one of auto, cpu, torch"):
        backend.resolve("op", "cpu", available=FORMS)


def test_each_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=backend.__name__):
        for requested in ("cpu", "cpu", "reference", "cpu"):
            backend.resolve("an operator of this test", "cpu", requested, available=FORMS)
    assert [record.args for record in caplog.records] == [
        ("an operator of this test", "cpu", "cpu"),
        ("an operator of this test", "cpu", "reference"),
    ]


def test_operators_load_on_first_use() -> None:
    code = (
        "import sys, fewlabel; assert 'torch' not in sys.modules; "
        "assert callable(fewlabel.kernels.contrast.info_nce); assert 'contrast' in dir(fewlabel.kernels)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import fewlabel.kernels

    with pytest.raises(AttributeError, match="no_such_operator"):
        _ = fewlabel.kernels.no_such_operator


@pytest.fixture
def precision() -> Iterator[None]:
    """Put the defaults back."""
    yield
    for family in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)):
        if hasattr(family, "fp32_precision"):
            family.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_full_precision_undoes_what_the_user_set_and_puts_it_back(setting: str) -> None:
    torch.set_float32_matmul_precision(setting)
    with torch.autocast("cpu", dtype=torch.bfloat16), backend.full_precision("cpu"):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
    assert torch.get_float32_matmul_precision() == setting


@pytest.mark.usefixtures("precision")
def test_full_precision_undoes_new_style_settings_too() -> None:
    switches = torch.backends.cuda.matmul
    if not hasattr(switches, "fp32_precision"):
        pytest.skip("this torch has no fp32_precision")
    switches.fp32_precision = "tf32"
    with pytest.raises(KeyError), backend.full_precision("cpu"):
        assert switches.fp32_precision == "ieee"
        raise KeyError
    assert switches.fp32_precision == "tf32"
