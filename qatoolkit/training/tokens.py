"""Token files: documents tokenised once, then memory-mapped.

A folder has `tokens.bin` (all documents concatenated), `offsets.npy`, `given.npy` and, written last, `tokens.json`.
Forty billion tokens take 160 GB on disk and almost no memory.
"""

import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.files import atomic, read_json, write_json
from qatoolkit.core.prompt_format import as_prompt_and_answer, needs_choices, refers_to_choices
from qatoolkit.core.qa_table import as_lists
from qatoolkit.core.text import first_line
from qatoolkit.training.digests import require_undamaged, write_digests

Document = str | tuple[str, str]  # a text, or a prompt and its answer
TOKEN_FILE = "tokens.json"  # marks a finished token folder
CHUNK = 8000  # characters of a document cut from running text


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """Tokenised documents: `tokens` [tokens] (memory-mapped); `offsets` [documents + 1] int64, where each begins;
    `given` [documents] int32, the number of prompt tokens of each; `about`, the content of `tokens.json`."""

    folder: Path
    tokens: np.ndarray
    offsets: np.ndarray
    given: np.ndarray
    about: dict

    def __len__(self) -> int:
        return len(self.given)

    def __repr__(self):
        return f"{len(self):,} documents, {len(self.tokens):,} tokens in {self.folder.name}"


def train_tokenizer(texts: list[str], vocabulary: int):
    """Train a byte-level BPE tokenizer with `<pad>` and `<eos>`; returns a transformers tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def tokenizer_digest(tokenizer) -> str:
    """sha256 of a tokenizer's vocabulary and end-of-text token; equal digests mean equal ids."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_tokens(
    documents: Iterable[Document], tokenizer, folder: Path, *, most: int | None = None, together: int = 4096
) -> TokenFile:
    """Tokenise documents into a token file, `together` at a time, until it has `most` tokens.

    Every document begins with the tokenizer's special tokens, if any, and ends with its end-of-text token. A token
    belongs to the prompt if it begins inside it. Raises ValueError for a tokenizer without an end-of-text token, for no
    documents, and for a folder with other content."""
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer {type(tokenizer).__name__} has no end-of-text token to end documents with; name one as "
            "eos_token in its tokenizer_config.json"
        )
    # a padding token may be outside the model's embedding, as in `evaluation.cloze.check_fit`, unless a text uses it
    vocabulary = 1 + max(i for token, i in tokenizer.get_vocab().items() if token != tokenizer.pad_token)
    dtype = np.uint16 if max(tokenizer.get_vocab().values()) < 1 << 16 else np.uint32
    lengths, given, documents = [], [], iter(documents)
    folder = Path(folder)
    with atomic(folder, over=TOKEN_FILE) as temporary:
        temporary.mkdir(parents=True)
        with open(temporary / "tokens.bin", "wb") as file:
            written = 0
            while (most is None or written < most) and (
                batch := list(itertools.islice(documents, together if most is None else 64))
            ):
                pairs = [("", d) if isinstance(d, str) else d for d in batch]
                encoded = tokenizer([a + b for a, b in pairs], return_offsets_mapping=True, verbose=False)
                for ids, spans, (prompt, _) in zip(encoded["input_ids"], encoded["offset_mapping"], pairs, strict=True):
                    if not ids or ids[-1] != tokenizer.eos_token_id:
                        ids = [*ids, tokenizer.eos_token_id]
                    file.write(np.array(ids, dtype=dtype).tobytes())
                    vocabulary = max(vocabulary, 1 + max(ids))
                    lengths.append(len(ids))
                    written += len(ids)
                    given.append(next((i for i, (begin, _) in enumerate(spans) if begin >= len(prompt)), len(spans)))
        if not lengths:
            raise ValueError(f"no documents to write to {folder}; give at least one")
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        np.save(temporary / "offsets.npy", offsets.astype(np.int64))
        np.save(temporary / "given.npy", np.array(given, dtype=np.int32))
        about = {
            "documents": len(lengths),
            "tokens": int(offsets[-1]),
            "dtype": np.dtype(dtype).name,
            "tokenizer": tokenizer_digest(tokenizer),
            "vocabulary": vocabulary,
            "eos": tokenizer.eos_token_id,
            "pad": tokenizer.eos_token_id,
        }
        write_json(about | {"digest": _content_digest(temporary)}, temporary / TOKEN_FILE)
        write_digests(temporary)
    return open_tokens(folder)


def open_tokens(folder: str | Path) -> TokenFile:
    """Open a token file without reading all of it; ValueError if there is none or it is damaged."""
    folder = Path(folder)
    if not (folder / TOKEN_FILE).is_file():
        raise ValueError(
            f"{folder} is not a finished token file (no tokens.json): make it with `qatoolkit tokenise` or write_tokens"
        )
    try:
        require_undamaged(folder, "make it again")
    except OSError as error:
        raise ValueError(str(error)) from None
    about = read_json(folder / TOKEN_FILE)
    file, dtype = folder / "tokens.bin", np.dtype(about["dtype"])
    if file.stat().st_size != about["tokens"] * dtype.itemsize:
        raise ValueError(
            f"{file} is cut short: it has {file.stat().st_size:,} bytes instead of "
            f"{about['tokens'] * dtype.itemsize:,}; make it again"
        )
    return TokenFile(
        folder=folder,
        tokens=np.memmap(file, dtype=dtype, mode="r"),
        offsets=np.load(folder / "offsets.npy", mmap_mode="r"),
        given=np.load(folder / "given.npy", mmap_mode="r"),
        about=about,
    )


def _content_digest(folder: Path) -> str:
    sha = hashlib.sha256()
    for name in ("tokens.bin", "offsets.npy", "given.npy"):
        with open(folder / name, "rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def qa_documents(table: pd.DataFrame, holds: Collection[str] = ()) -> Iterator[Document]:
    """The rows of a QA table as documents of prompt and answer; `holds` names additional content: "choices",
    "rationale". Choices are always included where the row needs them: the answer is letters ("BD"), or the question
    refers to choices (`prompt_format.refers_to_choices`). ValueError for a question that refers to choices and has none."""
    for row in as_lists(table).to_dict("records"):
        choices, several = row.get("choices") or (), row.get("choices") and pd.isna(row.get("answer_index"))
        if not choices and needs_choices(row["question"]):
            raise ValueError(
                f"row {row['id']} refers to choices and has none, so it can't be trained on: curate the table first "
                f"({row['question'][:60]!r})"
            )
        listed = choices if "choices" in holds or several or refers_to_choices(row["question"]) else ()
        rationale = row.get("rationale") if "rationale" in holds else None
        more = {"choices": listed, "rationale": None if pd.isna(rationale) else rationale}
        yield as_prompt_and_answer(row["question"], row["answer"], row["language"], **more)


def text_documents(paths: Iterable[str | Path], column: str = "text") -> Iterator[str]:
    """The texts of files, folders of files and `hf:name[:configuration[:split]]` data sets, streamed: they may be
    larger than memory.

    Parquet and JSON lines (.parquet, .jsonl) have a text in `column`; a .txt file is cut between paragraphs into
    documents of about `CHUNK` characters; .gz is read too. Empty texts are skipped. ValueError naming file and line if
    there is no text or the file can't be read."""
    for path in _text_files(paths):
        if isinstance(path, str):
            rows = _read_hub(path, column)
        elif (name := path.name.removesuffix(".gz")).endswith(".parquet"):
            rows = _read_parquet(path, column)
        elif name.endswith((".jsonl", ".json", ".ndjson")):
            rows = _read_json_lines(path, column)
        elif name.endswith((".txt", ".md")):
            rows = _read_plain(path)
        else:
            raise ValueError(f"{path}: not a text file that can be read; give .txt, .parquet or .jsonl files (.gz too)")
        try:
            yield from (text for text in rows if text.strip())
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is damaged or not UTF-8: {error}; write it again") from None


def _text_files(paths: Iterable[str | Path]) -> Iterator[Path | str]:
    """The files in the given order, those of a folder by name; `hf:` names unchanged."""
    for source in paths:
        path = Path(source)
        if str(source).startswith("hf:"):
            yield str(source)
        elif path.is_dir():
            files = sorted(p for p in path.rglob("*") if not (p.is_dir() or p.name.startswith((".", "README"))))
            if special := [p for p in files if not p.is_file()]:
                raise ValueError(
                    f"{special[0]} is not a regular file (a pipe, a device, or a broken link): remove it from {path}"
                )
            yield from files
        elif path.is_file():
            yield path
        else:
            raise ValueError(f"{path} does not exist; give a file, a folder or an hf: name")


def _read_plain(path: Path) -> Iterator[str]:
    """Whole paragraphs of running text, about `CHUNK` characters at a time."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
        lines, length = [], 0
        for line in file:
            if length >= CHUNK and (not line.strip() or length >= 4 * CHUNK):
                yield "".join(lines)
                lines, length = [], 0
            lines.append(line)
            length += len(line)
        yield "".join(lines)


def _read_hub(name: str, column: str) -> Iterator[str]:
    import datasets

    dataset, *more = name.removeprefix("hf:").split(":")
    configuration, split = (more + [None] * 2)[:2]
    try:
        rows = datasets.load_dataset(dataset, configuration or None, split=split or "train", streaming=True)
        first = next(iter(rows))
    except Exception as error:  # from the hub, the network or the data set
        raise ValueError(f"{name} can't be opened: {type(error).__name__}: {first_line(error)}") from None
    if not isinstance(first.get(column), str):
        raise ValueError(f"{name} has no text in column {column!r}; it has {', '.join(first)}")
    return (row[column] or "" for row in rows)


def _read_parquet(path: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is not a complete Parquet file: {error}") from None
    if column not in file.schema_arrow.names:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(file.schema_arrow.names)}")
    for batch in file.iter_batches(columns=[column]):
        for text in batch.column(0).to_pylist():
            if not isinstance(text, str | None):
                raise ValueError(f"{path}: column {column!r} has {type(text).__name__}, not text")
            yield text or ""


def _read_json_lines(path: Path, column: str) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                text = json.loads(line)[column] if line.strip() else ""
            except (ValueError, KeyError, TypeError):
                text = 0
            if not isinstance(text, str | None):
                raise ValueError(f"{path}, line {number}: not a JSON object with a text in {column!r}")
            yield text or ""
