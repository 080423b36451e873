"""Dataset and model cards: Markdown with the YAML head that the Hugging Face hub reads.

A card claims only what the run recorded: counts come from the table, the curation report from `curate`, costs from the
ledger, contamination from planted questions, scores from the manifest. Cards get published, so local paths, local
endpoints and secrets are removed and table text is escaped."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath

import pandas as pd

from qatoolkit.core.files import atomic, read_json
from qatoolkit.core.qa_table import PASS, write_table

_HUB_LICENCES = ("apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "odc-by", "llama3")
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_PATH = re.compile(
    r"(?:file://|(?<![\w:/.])(?:~|\.\.?)?/|(?<!\w)[A-Za-z]:[\\/]|\\\\)[^\s,;'\"<>|)\]}]*[^\s,;'\"<>|)\]}.]"
)
_LOCAL_URL = re.compile(
    r"https?://(?:localhost|127\.[\d.]+|0\.0\.0\.0|\[::1\]|10\.[\d.]+|192\.168\.[\d.]+)[^\s,;)\]}]*"
)
_SECRET_NAME = re.compile(r"(?:api_?key|secret|password|authorization|credential|access_token)", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(?:sk|hf|gsk|ghp|xai)[-_][\w-]{8,}")

PACKED_FILE = "packed.json"  # in a folder of packed tokens
_CONFIGS = [
    {"config_name": "default", "data_files": [{"split": "train", "path": "train*.parquet"}], "default": True},
    {"config_name": "packed", "data_files": [{"split": "train", "path": "packed/*.parquet"}]},
]
_FIELDS = {
    "id": "hash of the normalised content",
    "question": "the question",
    "answer": "the answer: text, or the text or letter of the right choice",
    "language": "language code",
    "source": "where the row, or its seed, comes from",
    "choices": "options without letters; null for open questions",
    "answer_index": "position of the right choice, from 0",
    "aliases": "other correct wordings of the answer; null if the source gives none",
    "rationale": "reasoning that leads to the answer",
    "discipline": "discipline id",
    "difficulty": "H1 recall to H5 several steps across disciplines; H4 and H5 are high",
    "grade": "stage of schooling",
    "knowledge_points": "knowledge points that the row exercises",
    "strategy": "how the row was made: seed, or a synthesis strategy",
    "parents": "ids of the rows it was made from",
    "teacher": "model that wrote it",
    "prompt_version": "version of the prompt",
    "licence": "licence of the row or its seed",
    "verified": "whether the answer passed a check",
    "flagged": "reasons for which curation doubts the row but keeps it, joined by commas; null for none",
}
_COSTS = "## Costs\n\nWhat was paid for, wasted calls included; USD is blank if a price is unknown."
_CURATION = "## Curation\n\nRows kept, rejected or only flagged, and why; shares are of the strategy's rows."
_CONTAMINATION = """## Contamination

Exam questions, unchanged and disguised, were planted in a copy of this data. The share that decontamination found \
is an estimate of its recall on this data."""
_DATASET_LIMITS = """\
- Not an exam: rows were made and selected for training, and many answers were checked only by models.
- Not a source of facts, nor of medical, legal or financial advice: teachers make mistakes.
- It inherits the rights and biases of its seeds: read the licences above before you redistribute rows.
- Decontaminated only against the exams of the run: check it against your own too."""
_RATE = (
    "measured pass rate of a model (a probability, or the share of `_n` sampled answers with its 95% interval `_low` to "
    "`_high`; `_unjudged` of them could not be judged and count as not passed)"
)
_MODEL_LIMITS = """\
- Not a chat model: mid-training comes before instruction tuning, and no safety training was done.
- Not a source of facts, nor of medical, legal or financial advice.
- A score on an exam means nothing until the training data is decontaminated against it."""


def dataset_card(
    table: pd.DataFrame,
    *,
    name: str,
    settings=None,
    report: pd.DataFrame | None = None,
    origins: pd.DataFrame | None = None,
    costs: pd.DataFrame | None = None,
    controls: pd.DataFrame | None = None,
    packed: Mapping | None = None,
) -> str:
    """Card of a QA table: licences, languages, sources, teachers, prompts, costs, strategy by difficulty, curation,
    contamination, settings, limits.

    `settings` is a settings object or a mapping; `report` is the third result of `curate`; `origins` is a table of the
    seeds that rows were written from; `costs` is a table like that of `cost_per_question`; `controls` is a table of
    planted exam questions and how many of them decontamination found; `packed` is the description of packed tokens that
    `training.packed.write_packed` returns. ValueError if the table has no question or source column."""
    from huggingface_hub import DatasetCardData

    missing = [column for column in ("question", "source") if column not in table.columns]
    if missing:
        raise ValueError(f"not a QA table: missing the columns {missing}; it has {list(table.columns)}")
    synthetic = int((~_values(table, "strategy").isin(["seed", "unknown"])).sum())
    head = DatasetCardData(
        pretty_name=_public(name),
        license=_licence_id(_values(table, "licence")),
        language=sorted(set(_values(table, "language")) - {"unknown"}),
        task_categories=["question-answering", "text-generation"],
        size_categories=[next((label for limit, label in _SIZES if len(table) < limit), "n>10M")],
        tags=["mid-training", *(["synthetic"] if synthetic else [])],
        **({"configs": _CONFIGS} if packed else {}),
    )
    parts = [
        f"{len(table):,} questions with answers for mid-training language models: {synthetic:,} written by a teacher "
        f"model, {len(table) - synthetic:,} seeds.",
        "## Composition",
        "Rows by strategy and difficulty:",
        _crossed(table, "strategy", "difficulty"),
        *(_counted(table, column) for column in ("discipline", "grade", "language")),
        "## Sources and licences",
        "Every row keeps the licence of its source; a synthetic row is also bound by the licences of its `parents`.",
        _counted(table, "source"),
        _counted(table, "licence"),
    ]
    if report is not None:
        report = report.assign(share=report["share"].map("{:.1%}".format))
    for title, content in (
        ("Seeds that rows were written from; their licences may also bind these rows:", origins),
        ("Teachers; their terms of use also apply:", _counted(table, "teacher")),
        ("Prompts they were written with:", _counted(table, "prompt_version")),
        (_COSTS, costs),
        (_CURATION, report),
        (_CONTAMINATION, controls),
        ("## Packed tokens\n\nThe configuration `packed` has the same rows as blocks of tokens.", packed),
        ("## Settings", settings),
    ):
        parts += [title, body] if (body := _body(content)) else []
    fields = [(f"`{c}`", _FIELDS.get(c, _RATE if c.startswith(PASS) else "")) for c in table.columns]
    parts += ["## Fields", _markdown(pd.DataFrame(fields, columns=["field", "meaning"]))]
    return _card(head, name, parts, _DATASET_LIMITS)


def save_dataset(
    table: pd.DataFrame, folder: str | Path, *, shard_rows: int | None = None, packed: str | Path | None = None, **about
) -> Path:
    """Write a QA table as a Hugging Face dataset (`train.parquet` and its card) and return the folder, which
    `datasets.load_dataset` opens and `qt.push_to_hub` uploads.

    With `shard_rows`, the table is split into files of that many rows (`train-00000-of-00002.parquet`). `packed` is a
    folder that `training.packed.write_packed` wrote from the same rows; it becomes the configuration `packed`. `about`
    holds the name and the other arguments of `dataset_card`. ValueError as in `dataset_card`, for `shard_rows` below 1,
    and for a folder that contains other files.

    >>> import qatoolkit as qt
    >>> rows = [{"question": "What do pandas eat?", "answer": "bamboo"}]
    >>> table = qt.qa_table(rows, language="en", source="zoo", licence="cc-by-4.0")
    >>> folder = qt.save_dataset(table, "zoo-quiz", name="Zoo quiz")
    >>> sorted(file.name for file in folder.iterdir())
    ['README.md', 'train.parquet']
    """
    if shard_rows is not None and shard_rows < 1:
        raise ValueError(f"shard_rows is {shard_rows}; it must be 1 or more")
    tokens = read_json(Path(packed) / PACKED_FILE) if packed else None
    card, folder = dataset_card(table, packed=tokens, **about), Path(folder)
    previous = sorted(path.name for path in folder.glob("train*.parquet"))
    with atomic(folder, over=previous[0] if previous else "train.parquet") as temporary:
        temporary.mkdir()
        shards = -(-len(table) // shard_rows) if shard_rows and len(table) else 1
        for i in range(shards):
            name = "train.parquet" if shard_rows is None else f"train-{i:05d}-of-{shards:05d}.parquet"
            rows = slice(None) if shard_rows is None else slice(i * shard_rows, (i + 1) * shard_rows)
            write_table(table.iloc[rows], temporary / name)
        if packed:
            shutil.copytree(packed, temporary / "packed")
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return folder


def model_card(manifest: Mapping) -> str:
    """Card of a mid-trained model, made from the manifest of its training.

    Known keys, all optional but `name`: name, base_model, licence, language, datasets, mixture (source -> share),
    settings, evaluation (rows with task, metric, value and more), versions. Other scalar keys (parameters, tokens,
    flops, seed) are listed as recorded. ValueError without a name."""
    from huggingface_hub import ModelCardData

    if not manifest.get("name"):
        raise ValueError(f"manifest has no 'name'; it has {sorted(map(str, manifest))}")
    base = manifest.get("base_model")
    head = ModelCardData(
        license=_licence_id(pd.Series([manifest.get("licence") or "unknown"])),
        language=_listed(manifest.get("language")) or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=_public(base) if base else None,
        datasets=[_public(name) for name in _listed(manifest.get("datasets"))] or None,
        tags=["mid-training"],
    )
    parts = [f"Mid-trained from {_cell(base)}." if base else "Trained from scratch in the run that wrote this card."]
    if manifest.get("mixture"):
        mixture = pd.DataFrame(list(manifest["mixture"].items()), columns=["part", "share of tokens"])
        parts += ["## Training data", _markdown(mixture)]
    shown = ("name", "base_model", "licence", "language", "datasets", "mixture", "settings", "evaluation", "versions")
    scalars = {k: v for k, v in manifest.items() if k not in shown and isinstance(v, str | int | float | bool)}
    if training := [_settings(values) for values in (scalars, manifest.get("settings")) if values]:
        parts += ["## Training", *training]
    parts.append("## Evaluation")
    evaluation = manifest.get("evaluation")
    if evaluation is not None and len(evaluation):
        parts.append(_markdown(pd.DataFrame(evaluation)))
        parts.append("Compare only with scores of the same harness, prompt format and number of examples.")
    else:
        parts.append("This card was written without scores. An evaluation afterwards does not change it.")
    if manifest.get("versions"):
        parts += ["## Software", _settings(manifest["versions"])]
    return _card(head, manifest["name"], parts, _MODEL_LIMITS)


def _card(head, name: str, parts: list[str], limits: str) -> str:
    parts = [f"---\n{head.to_yaml()}\n---", f"# {_cell(name)}", *parts, "## What it is not for", limits]
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(value) -> list:
    return [value] if isinstance(value, str) else list(value or [])


def _licence_id(licences: pd.Series) -> str:
    """The hub's id if all rows share one licence it knows, 'other' for a mixture or any other licence, 'unknown' for
    none."""
    ids = set(licences)
    if ids <= {"unknown"}:
        return "unknown"
    first = ids.pop().strip().lower().replace(" ", "-")
    return first if not ids and first in _HUB_LICENCES else "other"


def _values(table: pd.DataFrame, column: str) -> pd.Series:
    if column not in table.columns:
        return pd.Series(["unknown"] * len(table), dtype=object)
    return table[column].astype(object).where(table[column].notna(), "unknown").map(_public)


def _counted(table: pd.DataFrame, column: str) -> str:
    """Rows per value, most frequent first; empty if all values are unknown. Above 40 values, the rest share one
    line."""
    values = _values(table, column)
    if not (values != "unknown").any():
        return ""
    rows = sorted(values.value_counts(sort=False).items(), key=lambda item: (-item[1], item[0]))
    if len(rows) > 40:
        rows = [*rows[:39], (f"{len(rows) - 39} others", sum(count for _, count in rows[39:]))]
    return _markdown(pd.DataFrame(rows, columns=[column, "rows"]))


def _crossed(table: pd.DataFrame, down: str, across: str) -> str:
    crossed = pd.crosstab(*(pd.Series(_values(table, c).to_numpy(), name=c) for c in (down, across)))
    crossed["all"] = crossed.sum(axis=1)
    return _markdown(crossed.reset_index()) if len(crossed) else ""


def _body(content) -> str:
    """Markdown of a text, a table or settings; empty if there is nothing to show."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, pd.DataFrame):
        return _markdown(content) if len(content) else ""
    return _settings(content)


def _settings(settings) -> str:
    settings = settings.model_dump() if hasattr(settings, "model_dump") else settings
    rows = [(f"`{_public(k)}`", v) for k, v in settings.items() if not _SECRET_NAME.search(str(k))]
    return _markdown(pd.DataFrame(rows, columns=["setting", "value"], dtype=object))


def _markdown(table: pd.DataFrame) -> str:
    numeric = [pd.api.types.is_numeric_dtype(table[column]) for column in table.columns]
    lines = [[_cell(column) for column in table.columns], ["---:" if n else "---" for n in numeric]]
    lines += [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value) -> str:
    """Text for a cell of a Markdown table: public, on one line, with HTML and | escaped."""
    if isinstance(value, float):
        value = "" if value != value else f"{value:.4g}"
    elif isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    text = " ".join(_public("" if value is None else value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")


def _public(value) -> str:
    """The text of a value without secrets and local endpoints; of local paths only the last part is kept."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{k}: {_public(v)}" for k, v in value.items() if not _SECRET_NAME.search(str(k)))
    elif isinstance(value, list | tuple | set | frozenset):
        value = ", ".join(map(_public, value))
    elif isinstance(value, PurePath):
        return value.name
    text = _SECRET_VALUE.sub("(secret)", _LOCAL_URL.sub("(local endpoint)", str(value)))
    return _PATH.sub(lambda match: re.split(r"[\\/]", match[0].rstrip("\\/"))[-1], text)
