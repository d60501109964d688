"""The model card: a template, filled with what the logs and the files say."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from songgen_core.checking.report import Figure, markdown

from .export import Networks, hashes
from .published import num_parameters
from .settings import STAGES, Settings

_TEMPLATE = Path(__file__).with_name("card.md")
CHECK = "check.jsonl"
_NO_MEASURES = {"step", "minutes", "schedule", "training"}


@dataclass(frozen=True)
class Origin:
    """Folder of the logs, file of the settings, and the stage that left the language model."""

    logs: Path
    config: str
    lm_stage: str


def make_card(folder: Path, networks: Networks, settings: Settings, origin: Origin) -> str:
    """The card of the checkpoint in `folder`."""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=settings.name,
        parameters="\n".join(_parameters(networks)),
        corpus_minutes=f"{settings.corpus_minutes:g}",
        config=origin.config,
        seed=settings.seed,
        commit=_commit(),
        lm_stage=origin.lm_stage,
        held_out=settings.held_out,
        checked="\n".join(checked_rows(origin.logs / CHECK)),
        figures="\n".join(row for stage in STAGES for row in stage_rows(stage, origin.logs)),
        max_duration=f"{networks.lm.config.max_duration:g}",
        lyrics_length=networks.lm.config.lyrics_length,
        files="\n".join(f"| {n} | {size:,} | `{sha}` |" for n, (size, sha) in hashes(folder).items()),
    )


def stage_rows(stage: str, logs: Path) -> list[str]:
    """One row for each measure of a stage; none for a stage that has no log."""
    path = logs / f"{stage}.jsonl"
    if not path.exists():
        return []
    first, *later = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    last: Mapping[str, float] = later[-1] if later else first
    what = f"| {stage} | {last['step']} | {last.get('minutes', 0):.0f} |"
    rows = []
    for measure in (name for name in last if name not in _NO_MEASURES):
        before = f"{first[measure]:.3g}" if measure in first else ""
        rows.append(f"{what} {measure} | {before} | {last[measure]:.3g} |")
    return rows


def checked_rows(path: Path) -> list[str]:
    """What `songgen check-model --json` measured, if its last line lies at `path`."""
    if not path.exists():
        return ["Not measured."]
    report = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    figures = [Figure(name=name, **figure) for name, figure in report["figures"].items()]
    return [f"{report['made']} of {report['requests']} songs, seed {report['seed']}:", "", *markdown(figures)]


def _parameters(networks: Networks) -> list[str]:
    counts = {name: num_parameters(network) for name, network in networks.by_name().items()}
    rows = [f"| {name.replace('_', ' ')} | {count:,} |" for name, count in counts.items()]
    return [*rows, f"| together | {sum(counts.values()):,} |"]


def _commit() -> str:
    """Of the repository that this file lies in; "unknown" outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
