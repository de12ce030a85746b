"""timm's names are known without timm, and every family of its models runs or is refused in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
from click.testing import CliRunner

from semcodec.cli import main
from semcodec.composition.binding import check_possible
from semcodec.composition.composition import compose_spec
from semcodec.data.notes import DataNote
from semcodec.errors import UsageError
from semcodec_plugins.timm_models import names


def dry(spec: str):
    return CliRunner().invoke(main, ["compose", "--dry-run", spec])


def test_the_list_is_that_of_the_timm_it_names():
    made_from, listed = names.listed()
    if made_from != timm.__version__:
        pytest.skip(f"the list is of timm {made_from}, here is {timm.__version__}")
    lines = names.current().splitlines()
    assert lines[0] == f"# timm {made_from}"
    assert set(lines[1:]) == listed


def test_a_dry_run_refuses_a_name_that_timm_has_not():
    assert dry("png+timm/resnet50").exit_code == 0
    assert dry("png+timm/resnet50.a1_in1k").exit_code == 0
    told = dry("png+timm/resnet5o")
    assert told.exit_code == 2
    assert "has no model 'resnet5o': did you mean resnet50" in told.stderr
    assert "cls-attn" in dry("cls-attn:edge=timm/deit_tiny_patch16_224+timm/vit_base_patch16_224").stdout


def test_a_newer_timm_may_have_other_names(monkeypatch):
    monkeypatch.setattr(names, "version", lambda package: "99.0.0")
    with pytest.warns(DataNote, match=r"timm/resnet_of_2030: not among .* timm 99\.0\.0 may have it"):
        names.check("resnet_of_2030")
    monkeypatch.setattr(names, "version", lambda package: "0.9.1")
    with pytest.raises(UsageError, match="has no model 'resnet_of_2030'"):
        names.check("resnet_of_2030")


def test_a_dry_run_refuses_what_needs_a_program_that_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "")
    told = dry("bpg+resnet-nano")
    assert told.exit_code == 1
    assert told.stderr.startswith("error: bpg needs bpgenc and bpgdec")


def test_names_are_checked_without_timm_and_torch():
    code = (
        "import sys; from semcodec.composition.composition import compose_spec;"
        "from semcodec.composition.binding import check_possible;"
        "check_possible(compose_spec('png+timm/resnet50').bounds);"
        "assert not {'timm', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


FAMILIES = [
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnext_atto_rms",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "davit_tiny",
    "deepseek_vit_412m", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0",
    "ese_vovnet19b_slim_dw", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf",
    "gcvit_tiny", "gemma4_vit_167m", "ghostnet_050", "gmlp_ti16_224", "halonet_h1", "hardcorenas_b", "hgnetv2_b0",
    "hiera_tiny_224", "hrnet_w18_small", "iformer_s", "inception_next_atto", "inception_resnet_v2", "inception_v3",
    "inception_v4", "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "levit_128s", "lowformer_b0",
    "maxvit_pico_rw_256", "mnasnet_050", "mobilenetv3_small_050", "mobilenetv5_base", "mobilevit_xxs",
    "mvitv2_tiny", "naflexvit_base_patch16_parfac_gap", "nasnetalarge", "nest_tiny", "nextvit_small", "pit_xs_224",
    "pnasnet5large", "poolformer_s12", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050",
    "repvit_m0_9", "res2next50", "resnest14d", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny",
    "samvit_base_patch16_224", "selecsls42", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050",
    "swiftformer_xs", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256",
    "test_byobnet", "test_mambaout", "test_nfnet", "test_resnet", "test_vit", "test_vit_relpos", "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny", "vit_tiny_r_s16_p8_224",
    "vitamin_small_224", "volo_d1_224", "xception41p", "xcit_nano_12_p8_224",
]  # fmt: skip
"""Of each module of timm's, its smallest model, or nearly so."""

RUN = """
import sys, numpy as np, semcodec
from semcodec.errors import SemcodecError
try:
    pipeline = semcodec.compose(f"png+timm/{sys.argv[1]}", weights="random", classes=None)
    size = pipeline.request.height, pipeline.request.width
    [encoded] = pipeline.encode_batch(np.zeros((1, *size, 3), np.uint8), [0])
    [answer] = pipeline.decode_batch(pipeline.records([encoded]))
    print("ok", answer.index)
except SemcodecError as error:
    print("refused", error)
"""


def run(name: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-c", RUN, name]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_smallest_of_each_family_runs_or_is_refused_in_one_line(name):
    check_possible(compose_spec(f"png+timm/{name}").bounds)
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, name], capture_output=True, text=True, timeout=240
    )
    assert told.returncode == 0, told.stderr[-2000:]
    [line] = told.stdout.splitlines()
    assert line.startswith(("ok ", "refused "))


@pytest.mark.parametrize("name", ["coat_tiny", "efficientvim_m1"])
def test_models_that_share_modules_or_give_several_tensors_run(name):
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, name], capture_output=True, text=True, timeout=240
    )
    assert told.stdout.startswith("ok "), told.stderr[-2000:]
