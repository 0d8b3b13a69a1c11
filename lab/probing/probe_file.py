"""The probes: prompts with a response each, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BadInput


@dataclass(frozen=True)
class Probe:
    """A prompt and the fixed response whose tokens are followed."""

    prompt: str
    response: str


def read_probes(path: str | Path) -> list[Probe]:
    """Read a JSONL file of {"prompt": text, "response": text}; further keys are ignored, so are empty lines.

    Raises:
        BadInput: the file cannot be read, or a line is none such; the message names the line.
    """
    file = Path(path).expanduser()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"probes: {file} cannot be read ({error})") from None
    probes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise BadInput(f"probes: {file}, line {number}: not valid JSON ({error})") from None
        for key in ("prompt", "response"):
            text = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(text, str) or not text:
                raise BadInput(
                    f'probes: {file}, line {number}: expected {{"prompt": text, "response": text}}, no {key}'
                )
        probes.append(Probe(entry["prompt"], entry["response"]))
    if not probes:
        raise BadInput(f"probes: {file} holds no line")
    return probes
