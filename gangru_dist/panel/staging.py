"""Checked bars on their way into buckets: one Arrow IPC file a batch, one record batch a bucket.

A task that needs one bucket reads that record batch of every file and nothing else of it. Names
follow from the unit, so a task that ran twice has written the same file twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from gangru_dist.bars.columns import dictionary_of
from gangru_dist.filesystems import again
from gangru_dist.panel.manifest import bucket_of
from gangru_dist.storage import Storage

_PREFIX = "staging-"


def new_staging() -> str:
    """Name of a fresh folder below `<storage>/panel`."""
    return f"{_PREFIX}{uuid.uuid4().hex[:12]}"


def find_staging(panel: Storage) -> list[str]:
    """Names of all staging folders, also those of builds that were killed."""
    selector = pafs.FileSelector(panel.path, allow_not_found=True)
    found = panel.filesystem.get_file_info(selector)
    folders = (info.path for info in found if info.type == pafs.FileType.Directory)
    names = (path.rstrip("/").rsplit("/", 1)[-1] for path in folders)
    return [name for name in names if name.startswith(_PREFIX)]


def remove_staging(panel: Storage) -> None:
    """Remove every staging folder and unfinished write; for whoever has the turn (`turn.py`)."""
    for name in find_staging(panel):
        panel.delete_folder(name)
    panel.delete_unfinished()


def write_staged(panel: Storage, name: str, rows: pa.Table, buckets: int) -> None:
    """Write checked rows (`validate.CHECKED`) as one file with a record batch for every bucket."""
    rows = rows.combine_chunks().unify_dictionaries()
    code = dictionary_of(rows["code"])
    own = bucket_of(code.dictionary.to_pylist(), buckets)
    bucket = own[code.indices.to_numpy()] if len(rows) else np.empty(0, dtype=np.int64)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1))
    batch = rows.take(pa.array(order)).combine_chunks().to_batches()
    whole = batch[0] if batch else pa.RecordBatch.from_pylist([], schema=rows.schema)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(sink, rows.schema, options=options) as writer:
        for number in range(buckets):
            writer.write_batch(whole.slice(ends[number], ends[number + 1] - ends[number]))
    panel.write_bytes(name, sink.getvalue().to_pybytes())


def read_staged(panel: Storage, names: Sequence[str], bucket: int) -> pa.Table:
    """Rows of one bucket out of all staged files, in the files' order."""
    tables = [again(partial(_read_batch, panel, name, bucket)) for name in names]
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def _read_batch(panel: Storage, name: str, bucket: int) -> pa.Table:
    with panel.filesystem.open_input_file(panel.full(name)) as source:
        return pa.Table.from_batches([pa.ipc.open_file(source).get_batch(bucket)])
