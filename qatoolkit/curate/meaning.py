"""Questions that mean the same in other words: a layer behind the others, by the cosine of embeddings, off by default.

Averages of word vectors know subjects better than questions, so what it finds is flagged and not rejected; how much of it
is right was read on real questions (docs/LOG.md). The vectors are those of wordllama (extra `meaning`, 16 MB in its
package, English), or any function that embeds texts.
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
_CELLS = 1 << 24  # of the matrix of cosines that is in memory at a time


def same_meaning(
    table: pd.DataFrame, others: pd.DataFrame | None = None, *, threshold: float = 0.95, embed: Embed | None = None
) -> pd.DataFrame:
    """The nearest of `others` to each row, where the cosine of their questions reaches `threshold`: row (position), id,
    other_id, cosine. Without `others` the nearest earlier row of the table itself.

    Both must have the same numbers and negations, which embeddings hardly see, and half of their choices where both have
    some. `embed` takes texts and gives an array
    [texts, dimensions]; by default wordllama's vectors. ValueError for a threshold outside (0, 1], ModuleNotFoundError,
    with the line to install it, without wordllama.

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
    rows, signs = _read(table["question"], embed)
    there, other_signs = (rows, signs) if earlier else _read(others["question"], embed)
    own = [option_set(choices) for choices in values_of(table, "choices")]
    theirs = [option_set(choices) for choices in values_of(others, "choices")]
    found, step = [], max(1, _CELLS // max(1, len(others)))
    for start in range(0, len(table) if len(others) else 0, step):
        cosines = rows[start : start + step] @ there.T
        cosines[signs[start : start + step, None] != other_signs[None]] = -1
        best: dict[int, tuple[float, int]] = {}
        for i, j in np.argwhere(cosines >= threshold).tolist():
            row = start + i
            if (not earlier or j < row) and cosines[i, j] > best.get(row, (0.0,))[0] and _half(own[row], theirs[j]):
                best[row] = float(cosines[i, j]), j
        found += [(row, j, cosine) for row, (cosine, j) in best.items()]
    hits = pd.DataFrame(found, columns=["row", "other", "cosine"]).astype({"row": int, "other": int, "cosine": float})
    ids = {"id": table["id"].to_numpy()[hits["row"]], "other_id": others["id"].to_numpy()[hits["other"]]}
    return hits.assign(**ids)[["row", "id", "other_id", "cosine"]]


def _half(one: frozenset | None, two: frozenset | None) -> bool:
    return one is None or two is None or 2 * len(one & two) >= min(len(one), len(two))


def _read(questions: pd.Series, embed: Embed | None) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of questions, and a code of their numbers and negations."""
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
        message = 'same_meaning needs vectors: pip install "qatoolkit[meaning]", or give `embed`'
        raise ModuleNotFoundError(message, name=error.name) from None
    here = Path(wordllama.__file__).parent  # weights and tokenizer are in the package
    return wordllama.WordLlama.load(cache_dir=here, disable_download=True).embed
