"""Replays every recorded case of the original models that lies under $SONGGEN_GOLDENS.

Cases are found and checked by `area` and `kind` of their meta.json, never by folder name; a kind that is
not known here fails.
"""

import json
import os
from pathlib import Path

import checks_codec_encoder
import checks_lelm
import checks_renderer
import checks_separator
import checks_vae
import pytest

SHARED = Path(os.environ.get("SONGGEN_SHARED", Path(__file__).parents[3] / "shared"))
GOLDENS = Path(os.environ.get("SONGGEN_GOLDENS", SHARED / "goldens"))
CHECKS = {
    "lelm": checks_lelm.CHECKS,
    "renderer": checks_renderer.CHECKS,
    "vae": checks_vae.CHECKS,
    "codec_encoder": checks_codec_encoder.CHECKS,
    "separator": checks_separator.CHECKS,
}


def find_cases() -> list:
    cases = []
    # os.walk follows links into folders, which Path.glob does not on every Python
    found = [
        Path(base, "meta.json")
        for base, _, names in os.walk(GOLDENS, followlinks=True)
        if "meta.json" in names
    ]
    for path in sorted(found):
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["area"] in CHECKS:
            name = f"{meta['area']}/{meta['kind']}/{meta['case']}"
            cases.append(pytest.param(path.parent, meta, id=name))
    return cases


CASES = find_cases()


@pytest.mark.skipif("SONGGEN_GOLDENS" not in os.environ, reason="SONGGEN_GOLDENS is not set")
def test_the_named_folder_holds_cases() -> None:
    assert CASES, f"SONGGEN_GOLDENS={GOLDENS} holds no case of {', '.join(CHECKS)}"


@pytest.mark.skipif(not CASES, reason=f"no recorded cases under {GOLDENS}; set SONGGEN_GOLDENS")
@pytest.mark.parametrize(("folder", "meta"), CASES or [pytest.param(None, None, id="none")])
def test_golden(folder: Path, meta: dict) -> None:
    checks = CHECKS[meta["area"]]
    assert meta["kind"] in checks, (
        f"unknown kind of case '{meta['kind']}' in {folder}; teach it to {__file__}"
    )
    checks[meta["kind"]](folder, meta)
