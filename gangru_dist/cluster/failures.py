"""What Ray says when a process has ended, in a sentence or two [Ray]."""

from __future__ import annotations

import re

from ray.exceptions import OutOfMemoryError, RayError

from gangru_dist.base.errors import shorten


def describe_memory(said: str, remedy: str) -> str:
    """The node, the gigabytes and the way out, of what Ray says when it ends processes."""
    node = re.search(r"\(IP: (\S+), .*was ([\d.]+)GB used / ([\d.]+)GB", said)
    taken = re.findall(r"task name=(\S+?),.*?memory used=([\d.]+)GB", said)
    if node is None:
        return f"out of memory: {shorten(said)}"
    tasks = ", ".join(f"{name} {gb}" for name, gb in taken[:8])
    return (
        f"out of memory on node {node[1]}: {node[2]} of {node[3]} GB (GB of Ray's processes there: "
        f"{tasks or 'unknown'}). {remedy}"
    )


def describe_death(error: RayError, retries: int, remedy: str) -> str:
    """Why Ray gave work up whose process ended again and again."""
    if isinstance(error, OutOfMemoryError):
        return describe_memory(str(error), remedy)
    return (
        f"a worker process died {retries + 1} times over the same work: {shorten(error)}. It "
        "crashed (its log is in the folder of Ray's session), or the system ended it for want of "
        f"memory (`dmesg` says so). {remedy}"
    )
