"""How an exported cloze task is scored: `export_tasks` puts this file beside it, so it imports nothing from the
package."""

import math


def score_choices(doc, results):
    """lm-eval's `process_results`: acc by log-likelihood, acc_norm per character, acc_bytes per UTF-8 byte, and bpb, bits
    per byte of the right choice."""
    right, choices = doc["answer_index"], doc["choices"]
    values = [value for value, _ in results]
    best = {
        "acc": values,
        "acc_norm": [value / max(1, len(choice)) for value, choice in zip(values, choices, strict=True)],
        "acc_bytes": [value / max(1, len(choice.encode())) for value, choice in zip(values, choices, strict=True)],
    }
    scores = {name: float(found.index(max(found)) == right) for name, found in best.items()}
    return scores | {"bpb": -values[right] / math.log(2) / max(1, len(choices[right].encode()))}
