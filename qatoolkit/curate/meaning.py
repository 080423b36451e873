"""Finds questions that mean the same in other words, by the cosine of embeddings. Runs after the other checks; off by
default.

Averaged word vectors capture subjects better than questions, so hits are flagged, not rejected; their precision was
measured by reading hits on real questions (docs/LOG.md). The vectors come from wordllama (extra `meaning`, 16 MB in its
package, English), or from any function that embeds texts.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from qatoolkit.core.qa_table import require
from qatoolkit.curate.comparison_text import option_set, stem, text_of, tokens, values_of
from qatoolkit.curate.exam_arrays import NEGATIONS

Embed = Callable[[Sequence[str]], np.ndarray]
_CELLS = 1 << 24  # cells of the cosine matrix in memory at a time


def same_meaning(
    table: pd.DataFrame, others: pd.DataFrame | None = None, *, threshold: float = 0.95, embed: Embed | None = None
) -> pd.DataFrame:
    """The nearest of `others` to each row, where the cosine of their questions reaches `threshold`: row (position), id,
    other_id, cosine. Without `others`, the nearest earlier row of the table itself.

    Both must have the same numbers and negations, which embeddings barely represent, and share half of their choices if
    both have some. `embed` maps texts to an array [texts, dimensions]; the default is wordllama. ValueError for a
    threshold outside (0, 1]; ModuleNotFoundError, with the pip line, if wordllama is not installed.

    >>> import qatoolkit as qt
    >>> import pandas as pd
    >>> exam = pd.DataFrame({"id": ["e1", "e2"], "question": ["Which planet is the largest?", "What is pH?"]})
    >>> rows = [{"question": "What is the largest planet?", "answer": "Jupiter"}]
    >>> table = qt.qa_table(rows, language="en", source="zoo")
    >>> qt.curate.same_meaning(table, exam)[["row", "other_id"]]
       row other_id
    0    0       e1
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold}: must be in (0, 1]")
    require("same_meaning", table, "id", "question")
    earlier = others is None
    others = table if earlier else others
    require("same_meaning", others, "id", "question")
    vectors, signs = _embed(table["question"], embed)
    other_vectors, other_signs = (vectors, signs) if earlier else _embed(others["question"], embed)
    options = [option_set(choices) for choices in values_of(table, "choices")]
    other_options = [option_set(choices) for choices in values_of(others, "choices")]
    found, step = [], max(1, _CELLS // max(1, len(others)))
    for start in range(0, len(table) if len(others) else 0, step):
        cosines = vectors[start : start + step] @ other_vectors.T
        cosines[signs[start : start + step, None] != other_signs[None]] = -1
        best: dict[int, tuple[float, int]] = {}
        for i, j in np.argwhere(cosines >= threshold).tolist():
            row = start + i
            nearer = (not earlier or j < row) and cosines[i, j] > best.get(row, (0.0,))[0]
            if nearer and _share_half(options[row], other_options[j]):
                best[row] = float(cosines[i, j]), j
        found += [(row, j, cosine) for row, (cosine, j) in best.items()]
    hits = pd.DataFrame(found, columns=["row", "other", "cosine"]).astype({"row": int, "other": int, "cosine": float})
    ids = {"id": table["id"].to_numpy()[hits["row"]], "other_id": others["id"].to_numpy()[hits["other"]]}
    return hits.assign(**ids)[["row", "id", "other_id", "cosine"]]


def _share_half(one: frozenset | None, two: frozenset | None) -> bool:
    return one is None or two is None or 2 * len(one & two) >= min(len(one), len(two))


def _embed(questions: pd.Series, embed: Embed | None) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the questions, and a hash of the numbers and negations of each."""
    texts = [stem(text_of(text)) for text in questions]
    vectors = np.asarray((embed or _wordllama())(texts), dtype=np.float32) if texts else np.zeros((0, 1), np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    words = [tokens(text) for text in texts]
    marks = [" ".join(sorted(w for w in row if w[0].isdigit() or w in NEGATIONS or w.endswith("n't"))) for row in words]
    return vectors / np.maximum(length, 1e-12), pd.util.hash_array(np.array(marks, dtype=object))


@cache
def _wordllama() -> Embed:
    try:
        import wordllama
    except ModuleNotFoundError as error:
        message = 'same_meaning needs embeddings: pip install "qatoolkit[meaning]", or pass `embed`'
        raise ModuleNotFoundError(message, name=error.name) from None
    folder = Path(wordllama.__file__).parent  # the package contains weights and tokenizer
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True).embed
