"""Packed tokens as Parquet: blocks of equal length that other trainers can read directly."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qatoolkit.core.cards import PACKED_FILE
from qatoolkit.core.files import atomic, remove, write_json
from qatoolkit.training.packing import IGNORED, pack
from qatoolkit.training.tokens import qa_documents, write_tokens

AT_ONCE = 1024  # blocks in memory at once


def write_packed(
    table: pd.DataFrame, tokenizer, folder: str | Path, *, block: int, name: str, holds=(), shard_blocks: int = 100_000
) -> Path:
    """Write the rows of a QA table as blocks of `block` tokens: `train-00000.parquet` and so on with `shard_blocks`
    each, and `packed.json`: tokenizer (its `name`, by which others load it), its digest, block, blocks, tokens,
    documents, efficiency.

    Columns, all lists of `block` integers: input_ids; position_ids, which restart at 0 with every document; labels, the
    input ids with -100 on padding and on a document's first token, for a loss that shifts them itself. `holds` as in
    `tokens.qa_documents`. ValueError as there, for an empty table, and for a folder with other files in it."""
    with atomic(Path(folder), over=PACKED_FILE) as temporary:
        temporary.mkdir(parents=True)
        packed = pack(write_tokens(qa_documents(table, holds), tokenizer, temporary / "tokens"), block)
        for shard, first in enumerate(range(0, len(packed), shard_blocks)):
            with pq.ParquetWriter(temporary / f"train-{shard:05d}.parquet", _schema()) as file:
                last = min(first + shard_blocks, len(packed))
                for start in range(first, last, AT_ONCE):
                    file.write_table(_blocks(packed, np.arange(start, min(start + AT_ONCE, last))))
        about = {"tokenizer": name, "tokenizer_digest": packed.source.about["tokenizer"], "block": block}
        about |= {"blocks": len(packed), "tokens": int(packed.tokens.sum()), "documents": len(packed.source)}
        write_json(about | {"efficiency": packed.efficiency}, temporary / PACKED_FILE)
        remove(temporary / "tokens")
    return Path(folder)


def _schema() -> pa.Schema:
    return pa.schema([(name, pa.list_(pa.int32())) for name in ("input_ids", "position_ids", "labels")])


def _blocks(packed, rows: np.ndarray) -> pa.Table:
    ids, following, positions = packed.read(rows)
    labels = np.full_like(ids, IGNORED)
    labels[:, 1:] = following[:, :-1]
    return pa.table({"input_ids": list(ids), "position_ids": list(positions), "labels": list(labels)}, _schema())
