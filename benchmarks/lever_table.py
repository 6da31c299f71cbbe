"""The results of `benchmarks.levers` as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.lever_arms import ARMS


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table: medians, and the ranges of the main figures."""
    names = ["kernel", "systemd", "local", "init", "ssh", "login", "finished"]
    heads = ["arm", "n", *names, "CPU to ssh", "CPU to login", "CPU to finished", "others' CPU"]
    heads += ["code flushes", "address flushes"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for arm in ARMS:
        mine = [one for one in runs if one["arm"] == arm]
        if not mine:
            continue
        cells = [
            _cell(
                [one["seconds"][name] for one in mine if name in one["seconds"]],
                name in ("ssh", "login"),
            )
            for name in names
        ]
        cells += [
            _cell([one["cpu_seconds"][name] for one in mine if name in one["cpu_seconds"]], True)
            for name in ("ssh", "login", "finished")
        ]
        cells.append(_cell([one["others_cpu_seconds"] for one in mine], False))
        for name in ("tb_flushes", "tlb_flushes"):
            counts = [one[name] for one in mine if name in one]
            cells.append(f"{statistics.median(counts):,.0f}" if counts else "–")
        lines.append(f"| {arm} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: Sequence[float], spread: bool) -> str:
    if not values:
        return "–"
    text = f"{statistics.median(values):.1f}"
    if spread and len(values) > 1:
        text += f" ({min(values):.1f}–{max(values):.1f})"
    return text
