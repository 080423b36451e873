r"""Data sets as the hub has them: the columns are those that their cards and lm-eval's tasks name, the rows are our own.

A recipe is the rows, what becomes of each (the answer, or "!" and the reason of the reject), and what is known of the
first row: number of choices, question, aliases, rationale."""

import pandas as pd
import pytest

from qatoolkit.seeds.read import layout_report, read_seeds

FOUR = ["copper", "oak", "cotton", "wool"]
METAL = "Which of these is a metal?"
PLANT = "Which of these is a tree?"
PASSAGE = "Ann has a red hat. Bob has a blue one."
RED = ("Which colour is Ann's hat?", "red")
WOOD = {"text": FOUR, "label": ["A", "B", "C", "D"]}


def lettered(first, names, **more):
    return dict(zip(names.split(), first, strict=True)) | more


RECIPES = {
    "mmlu": (
        [{"question": METAL, "subject": "materials", "choices": FOUR, "answer": 0}]
        + [{"question": PLANT, "subject": "materials", "choices": FOUR, "answer": 1}],
        ["copper", "oak"],
        {"choices": 4, "subject": "materials"},
    ),
    "mmlu_pro": (
        [
            {"question_id": 1, "question": METAL, "options": [*FOUR, "silk"], "answer": "A", "answer_index": 0}
            | {"cot_content": "Copper conducts.", "category": "engineering", "src": "own"},
            {"question_id": 2, "question": PLANT, "options": FOUR, "answer": "B", "answer_index": 1, "cot_content": ""},
        ],
        ["copper", "oak"],
        {"choices": 5, "rationale": "Copper conducts.", "subject": "engineering"},
    ),
    "mmlu_redux": (
        [
            {"question": METAL, "choices": FOUR, "answer": 0, "error_type": "ok", "correct_answer": None},
            {"question": PLANT, "choices": FOUR, "answer": 1, "error_type": "ok", "correct_answer": None},
            {"question": "Which is spun?", "choices": FOUR, "answer": 3, "error_type": "wrong", "correct_answer": "2"},
        ],
        ["copper", "oak", "wool"],
        {"choices": 4, "unused": "correct_answer"},
    ),
    "ai2_arc": (
        [{"id": "a1", "question": METAL, "choices": WOOD, "answerKey": "A"}]
        + [{"id": "a2", "question": PLANT, "choices": WOOD | {"label": list("1234")}, "answerKey": "2"}],
        ["copper", "oak"],
        {"choices": 4, "source_id": "a1"},
    ),
    "arc as its own files": (
        [
            {"id": "a1", "answerKey": key, "question": {"stem": stem, "choices": options}}
            for key, stem in (("A", METAL), ("B", PLANT))
            for options in [[{"text": t, "label": c} for t, c in zip(FOUR, "ABCD", strict=True)]]
        ],
        ["copper", "oak"],
        {"choices": 4, "question": METAL},
    ),
    "openbookqa": (
        [{"id": "o1", "question_stem": METAL, "choices": WOOD, "answerKey": "A", "fact1": "metals conduct"}]
        + [{"id": "o2", "question_stem": PLANT, "choices": WOOD, "answerKey": "B", "fact1": "trees have wood"}],
        ["copper", "oak"],
        {"choices": 4},
    ),
    "commonsense_qa": (
        [{"id": "c1", "question": METAL, "question_concept": "metal", "choices": WOOD, "answerKey": "A"}]
        + [{"id": "c2", "question": PLANT, "question_concept": "tree", "choices": WOOD, "answerKey": ""}],
        ["copper", "!empty_answer"],
        {"choices": 4, "question": METAL},
    ),
    "hellaswag": (
        [
            {"ind": i, "activity_label": "Cooking", "ctx_a": "He boils water.", "ctx_b": "then he", "ctx": ctx}
            | {"endings": ["adds rice.", "swims off.", "paints it.", "sells the sea."], "source_id": "x", "label": label}
            for i, (ctx, label) in enumerate([("He boils water. then he", "0"), ("He has a pot. then he", "")])
        ],
        ["adds rice.", "!empty_answer"],
        {"choices": 4, "question": "He boils water. then he"},
    ),
    "piqa": (
        [{"goal": "Open a jar", "sol1": "Twist the lid.", "sol2": "Twist the label.", "label": 0}]
        + [{"goal": "Dry a cup", "sol1": "Wet it.", "sol2": "Wipe it.", "label": 1}]
        + [{"goal": "Cut bread", "sol1": "Use a saw blade knife.", "sol2": "Use a spoon.", "label": -1}],
        ["Twist the lid.", "Wipe it.", "!withheld"],
        {"choices": 2, "question": "Open a jar"},
    ),
    "social_i_qa": (
        [
            {"context": "Kim lent Lee a pen.", "question": "How is Lee?", "answerA": a, "answerB": b, "answerC": "old"}
            | {"label": label}
            for a, b, label in (("glad", "cross", "1"), ("ill", "thankful", "2"))
        ],
        ["glad", "thankful"],
        {"choices": 3, "question": "Kim lent Lee a pen.\n\nHow is Lee?"},
    ),
    "winogrande": (
        [
            {"sentence": f"The cup fit in the box because the _ was {how}.", "option1": "cup", "option2": "box"}
            | {"answer": answer}
            for how, answer in (("small", "1"), ("large", "1"), ("hidden", ""))
        ],
        ["cup", "cup", "!empty_answer"],
        {"choices": 2, "question": "The cup fit in the box because the _ was small."},
    ),
    "copa": (
        [{"premise": "The cup broke.", "choice1": "It fell.", "choice2": "It sang.", "question": "cause", "label": 0}]
        + [{"premise": "It rained.", "choice1": "It was dry.", "choice2": "It was wet.", "question": "effect", "label": 1}],
        ["It fell.", "It was wet."],
        {"choices": 2, "question": "The cup broke.\n\ncause"},
    ),
    "swag": (
        [
            {"video-id": "v", "fold-ind": "1", "startphrase": start, "sent1": "She sits.", "sent2": "She", "label": label}
            | lettered(["reads.", "melts.", "rains.", "rusts."], "ending0 ending1 ending2 ending3", **{"gold-source": "gold"})
            for start, label in (("She sits. She", 0), ("He sits. He", 2))
        ],
        ["reads.", "rains."],
        {"choices": 4, "question": "She sits. She"},
    ),
    "boolq": (
        [{"question": "does ann have a hat", "answer": True, "passage": PASSAGE}]
        + [{"question": "does bob have a red hat", "answer": False, "passage": PASSAGE}],
        ["true", "false"],
        {"question": f"{PASSAGE}\n\ndoes ann have a hat"},
    ),
    "strategyqa": (
        [{"qid": "s1", "term": "Oak", "question": "Can an oak float?", "answer": True, "facts": ["Wood floats."]}]
        + [{"qid": "s2", "term": "Iron", "question": "Can iron float?", "answer": False, "facts": ["Iron sinks.", "It is dense."]}],
        ["true", "false"],
        {"rationale": "Wood floats."},
    ),
    "sciq": (
        [
            {"question": METAL, "distractor3": "wool", "distractor1": "oak", "distractor2": "cotton"}
            | {"correct_answer": "copper", "support": "Copper is a metal."},
            {"question": PLANT, "distractor3": "wool", "distractor1": "copper", "distractor2": "cotton"}
            | {"correct_answer": "oak", "support": ""},
        ],
        ["copper", "oak"],
        {"choices": 4, "rationale": "Copper is a metal."},
    ),
    "gpqa": (
        [
            {"Pre-Revision Question": "old", "Pre-Revision Correct Answer": "old", "Question": METAL, "Subdomain": "x"}
            | {"Correct Answer": "copper", "Incorrect Answer 1": "oak", "Incorrect Answer 2": "cotton"}
            | {"Incorrect Answer 3": "wool", "Explanation": "Copper conducts."},
            {"Question": PLANT, "Correct Answer": "oak", "Incorrect Answer 1": "copper", "Incorrect Answer 2": "wool"}
            | {"Incorrect Answer 3": "silk", "Explanation": None},
        ],
        ["copper", "oak"],
        {"choices": 4, "question": METAL, "rationale": "Copper conducts.", "unused": "Pre-Revision Correct Answer"},
    ),
    "opentdb": (
        [
            {"type": "multiple", "difficulty": "easy", "category": "Science", "question": METAL}
            | {"correct_answer": "copper", "incorrect_answers": ["oak", "cotton", "wool"]},
            {"type": "boolean", "difficulty": "easy", "category": "Science", "question": "An oak is a tree."}
            | {"correct_answer": "True", "incorrect_answers": ["False"]},
        ],
        ["copper", "True"],
        {"choices": 4, "subject": "Science", "level": "easy"},
    ),
    "truthful_qa generation": (
        [
            {"type": "Adversarial", "category": "Health", "question": "What does a fish drink?", "best_answer": "Water"}
            | {"correct_answers": ["Water", "Sea water"], "incorrect_answers": ["Milk", "Nothing"], "source": "https://own"},
            {"type": "Adversarial", "category": "Law", "question": "Who owns the moon?", "best_answer": "Nobody"}
            | {"correct_answers": ["Nobody"], "incorrect_answers": ["A king"], "source": "https://own"},
        ],
        ["Water", "Nobody"],
        {"choices": 3, "aliases": ["Sea water"]},
    ),
    "truthful_qa multiple_choice": (
        [
            {"question": "What does a fish drink?", "mc1_targets": {"choices": ["Water", "Milk"], "labels": [1, 0]}}
            | {"mc2_targets": {"choices": ["Water", "Sea water", "Milk"], "labels": [1, 1, 0]}},
            {"question": "Who owns the moon?", "mc1_targets": {"choices": ["A king", "Nobody"], "labels": [0, 1]}}
            | {"mc2_targets": {"choices": ["A king", "Nobody", "All"], "labels": [0, 1, 1]}},
        ],
        ["Water", "Nobody"],
        {"choices": 2, "unused": "mc2_targets"},
    ),
    "big-bench, target_scores": (
        [{"input": METAL, "target_scores": {"copper": 1, "oak": 0}}, {"input": PLANT, "target_scores": {"oak": 1, "tin": 0}}],
        ["copper", "oak"],
        {"choices": 2},
    ),
    "big-bench, hub": (
        [
            {"idx": i, "inputs": q, "targets": [right], "multiple_choice_targets": ["copper", "oak"]}
            | {"multiple_choice_scores": scores}
            for i, (q, right, scores) in enumerate([(METAL, "copper", [1, 0]), (PLANT, "oak", [0, 1])])
        ],
        ["copper", "oak"],
        {"choices": 2, "question": METAL},
    ),
    "bbh": (
        [
            {"input": f"{METAL}\nOptions:\n(A) copper\n(B) oak", "target": "(A)"},
            {"input": "not ( True ) is", "target": "False"},
        ],
        ["copper", "False"],
        {"choices": 2},
    ),
    "gsm8k": (
        [{"question": "2 bags of 3 nuts?", "answer": "2 * 3 = <<2*3=6>>6\n#### 6"}]
        + [{"question": "1,000 nuts and 200?", "answer": "Add them.\n#### 1,200"}],
        ["6", "1,200"],
        {"rationale": "2 * 3 = <<2*3=6>>6"},
    ),
    "math": (
        [{"problem": "Half of 1?", "level": "Level 1", "type": "Algebra", "solution": r"It is $\boxed{\frac{1}{2}}$."}]
        + [{"problem": "3 - 1?", "level": "Level 1", "type": "Algebra", "solution": r"So $\boxed 2$."}],
        [r"\frac{1}{2}", "2"],
        {"rationale": r"It is $\boxed{\frac{1}{2}}$.", "level": "Level 1", "subject": "Algebra"},
    ),
    "math-500": (
        [{"problem": "Half of 1?", "solution": r"It is $\boxed{\frac{1}{2}}$.", "answer": r"\frac{1}{2}", "unique_id": "u"}]
        + [{"problem": "3 - 1?", "solution": r"So $\boxed{2}$.", "answer": "2", "unique_id": "v"}],
        [r"\frac{1}{2}", "2"],
        {"rationale": r"It is $\boxed{\frac{1}{2}}$."},
    ),
    "svamp": (
        [{"ID": "s1", "Body": "Ann has 3 nuts.", "Question": "How many are left after 1?", "Answer": 2.0, "Type": "Sub"}]
        + [{"ID": "s2", "Body": "Bob has 3 nuts.", "Question": "How many are left after 2?", "Answer": 1.0, "Type": "Sub"}],
        ["2.0", "1.0"],
        {"question": "Ann has 3 nuts.\n\nHow many are left after 1?"},
    ),
    "math_qa": (
        [
            {"Problem": "2 + 2 = ?", "Rationale": "add", "options": "a ) 3 , b ) 4 , c ) 5 , d ) 6 , e ) 7", "correct": "b"}
            | {"annotated_formula": "add(2,2)", "linear_formula": "add(n0,n0)|", "category": "general"},
            {"Problem": "2 + 3 = ?", "Rationale": "add", "options": "a ) 3 , b ) 4 , c ) 5 , d ) 6 , e ) 7", "correct": "c"}
            | {"annotated_formula": "add(2,3)", "linear_formula": "add(n0,n1)|", "category": "general"},
        ],
        ["4", "5"],
        {"choices": 5, "rationale": "add"},
    ),
    "aqua_rat": (
        [{"question": "2 + 2 = ?", "options": ["A)3", "B)4", "C)5"], "rationale": "add", "correct": "B"}]
        + [{"question": "2 + 3 = ?", "options": ["A)3", "B)4", "C)5"], "rationale": "add", "correct": "C"}],
        ["4", "5"],
        {"choices": 3},
    ),
    "theoremqa": (
        [{"Question": "Is 2 prime?", "Answer": "True", "Answer_type": "bool", "Picture": None}]
        + [{"Question": "Roots of x^2 - 3x + 2?", "Answer": "[1, 2]", "Answer_type": "list of integer", "Picture": None}],
        ["True", "[1, 2]"],
        {"question": "Is 2 prime?"},
    ),
    "scibench": (
        [
            {"problem_text": "How long?", "answer_latex": " 2.5", "answer_number": "2.5", "unit": "nm", "source": "own"},
            {"problem_text": "How heavy?", "answer_latex": r" 3.1 \times 10^{4}", "answer_number": "3.1"}
            | {"unit": " $10^4 \\mathrm{~kg}$", "source": "own"},
            {"problem_text": "How warm?", "answer_latex": "-7", "answer_number": "-7", "unit": "", "source": "own"},
            {"problem_text": "How far?", "answer_latex": r"3 \times 10^{4}", "answer_number": "3", "unit": "$10^5$ m"},
        ],
        ["2.5 nm", r"3.1 \times 10^{4} $\mathrm{~kg}$", "-7", "!unclear_number"],
        {"question": "How long?"},
    ),
    "olympiadbench": (
        [
            {"id": 1, "question": "How fast?", "solution": ["Divide.", "So 5."], "final_answer": ["5"], "context": None}
            | {"unit": "m/s", "answer_type": "Numerical", "is_multiple_answer": False, "language": "English"},
            {"id": 2, "question": "Roots?", "solution": ["Factor."], "final_answer": ["$1$", "$2$"], "context": None}
            | {"unit": None, "answer_type": "Numerical", "is_multiple_answer": True, "language": "English"},
        ],
        ["5 m/s", "$1$, $2$"],
        {"rationale": "Divide.\nSo 5."},
    ),
    "numinamath": (
        [{"source": "olympiads", "problem": "3 - 1?", "solution": r"$\boxed{2}$", "messages": [{"role": "user"}]}]
        + [{"source": "amc", "problem": "x^2 = 4?", "solution": r"$x=\boxed{2}$ or $\boxed{-2}$", "messages": []}]
        + [{"source": "amc", "problem": "?!x", "solution": r"First $\boxed{2}$. Now the rest: $\boxed{3}$", "messages": []}],
        ["2", "2, -2", "!unclear_box"],
        {"question": "3 - 1?"},
    ),
    "openmathinstruct": (
        [
            {"problem": "3 - 1?", "generated_solution": "Subtract.", "expected_answer": "2", "problem_source": "own"},
            {"problem": "3 - 2?", "generated_solution": "Subtract.", "expected_answer": "1", "problem_source": "own"},
        ],
        ["2", "1"],
        {"rationale": "Subtract."},
    ),
    "medqa": (
        [
            {"question": METAL, "answer": "copper", "options": dict(zip("ABCD", FOUR, strict=True)), "answer_idx": "A"}
            | {"meta_info": "step1", "metamap_phrases": ["metal"]},
            {"question": PLANT, "answer": "oak", "options": dict(zip("ABCD", FOUR, strict=True)), "answer_idx": "B"},
        ],
        ["copper", "oak"],
        {"choices": 4},
    ),
    "medmcqa": (
        [
            {"id": "m", "question": q, "cop": cop, "choice_type": "single", "exp": "Why.", "subject_name": "Anatomy"}
            | lettered(FOUR, "opa opb opc opd", topic_name="x")
            for q, cop in ((METAL, 0), (PLANT, 1), ("Which is spun?", -1))
        ],
        ["copper", "oak", "!withheld"],
        {"choices": 4, "rationale": "Why.", "subject": "Anatomy"},
    ),
    "pubmed_qa": (
        [
            {"pubid": i, "question": q, "context": {"contexts": ["Ten mice.", "All slept."], "labels": ["METHODS", "RESULTS"]}}
            | {"long_answer": "They did.", "final_decision": decision}
            for i, (q, decision) in enumerate([("Did mice sleep?", "yes"), ("Did mice eat?", "maybe")])
        ],
        ["yes", "maybe"],
        {"question": "Ten mice.\nAll slept.\n\nDid mice sleep?", "rationale": "They did."},
    ),
    "race": (
        [{"example_id": "h1", "article": PASSAGE, "question": q, "options": ["red", "blue"], "answer": a} for q, a in (RED[:1] + ("A",), ("And Bob's?", "B"))],
        ["red", "blue"],
        {"choices": 2, "question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "reclor": (
        [
            {"context": PASSAGE, "question": q, "answers": ["Ann has a hat", "Bob has none"], "label": label, "id_string": "t"}
            for q, label in (("What follows?", 0), ("What does not follow?", 1))
        ],
        ["Ann has a hat", "Bob has none"],
        {"choices": 2, "question": f"{PASSAGE}\n\nWhat follows?"},
    ),
    "logiqa": (
        [{"context": PASSAGE, "query": q, "options": ["Ann has a hat", "Bob has none"], "correct_option": i} for q, i in (("What follows?", 0), ("What does not?", 1))],
        ["Ann has a hat", "Bob has none"],
        {"choices": 2, "question": f"{PASSAGE}\n\nWhat follows?"},
    ),
    "quail": (
        [
            {"id": "q", "context": PASSAGE, "question": q, "question_type": "fact", "answers": ["red", "blue", "not enough information"]}
            | {"correct_answer_id": i}
            for q, i in ((RED[0], 0), ("And Bob's?", 1))
        ],
        ["red", "blue"],
        {"choices": 3},
    ),
    "cosmos_qa": (
        [
            {"id": "c", "context": PASSAGE, "question": q, "label": label}
            | lettered(["red", "blue", "old", "none of the above choices"], "answer0 answer1 answer2 answer3")
            for q, label in ((RED[0], 0), ("And Bob's?", 1), ("Withheld?", -1))
        ],
        ["red", "blue", "!withheld"],
        {"choices": 4, "question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "dream": (
        [{"dialogue_id": "d", "dialogue": ["W: My hat is red.", "M: Mine is blue."], "question": q, "choice": ["red", "blue"], "answer": a} for q, a in (("The woman's hat?", "red"), ("The man's hat?", "blue"))],
        ["red", "blue"],
        {"choices": 2, "question": "W: My hat is red.\nM: Mine is blue.\n\nThe woman's hat?"},
    ),
    "qasc": (
        [
            {"id": "q", "question": q, "choices": WOOD, "answerKey": key, "fact1": "f", "fact2": "g", "combinedfact": "h"}
            | {"formatted_question": f"{q} (A) copper (B) oak (C) cotton (D) wool"}
            for q, key in ((METAL, "A"), (PLANT, "B"))
        ],
        ["copper", "oak"],
        {"choices": 4, "question": METAL},
    ),
    "qa4mre": (
        [
            {"topic_id": "1", "document_str": PASSAGE, "question_str": q, "correct_answer_id": str(i + 1)}
            | {"correct_answer_str": a, "answer_options": {"answer_id": ["1", "2"], "answer_str": ["red", "blue"]}}
            for i, (q, a) in enumerate([RED, ("And Bob's?", "blue")])
        ],
        ["red", "blue"],
        {"choices": 2, "question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "belebele": (
        [
            {"link": "l", "question_number": 1, "flores_passage": PASSAGE, "question": q, "correct_answer_num": num}
            | lettered(["red", "blue", "grey", "pink"], "mc_answer1 mc_answer2 mc_answer3 mc_answer4", dialect="eng_Latn")
            for q, num in ((RED[0], "1"), ("And Bob's?", "2"), ("Which is grey?", "3"), ("Pink?", "4"))
        ],
        ["red", "blue", "grey", "pink"],
        {"choices": 4, "question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "squad": (
        [
            {"id": "s", "title": "Hats", "context": PASSAGE, "question": q, "answers": {"text": texts, "answer_start": [1] * len(texts)}}
            for q, texts in ((RED[0], ["red", "a red"]), ("And Bob's?", ["blue"]), ("And Cy's?", []))
        ],
        ["red", "blue", "!empty_answer"],
        {"question": f"{PASSAGE}\n\n{RED[0]}", "aliases": ["a red"]},
    ),
    "drop": (
        [
            {"section_id": "s", "query_id": "q", "passage": PASSAGE, "question": q}
            | {"answers_spans": {"spans": spans, "types": ["span"] * len(spans)}}
            for q, spans in ((RED[0], ["red"]), ("How many hats?", ["2", "2"]))
        ],
        ["red", "2"],
        {"question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "drop as its own files": (
        [
            {"passage": PASSAGE, "question": q, "answer": {"number": number, "spans": spans, "date": {"day": ""}, "hit_id": "h"}}
            for q, number, spans in ((RED[0], "", ["red"]), ("How many hats?", "2", []), ("Who?", "", ["Ann", "Bob"]))
        ],
        ["red", "2", "Ann, Bob"],
        {"question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "trivia_qa": (
        [
            {"question": "Whose hat is red?", "question_id": "t", "entity_pages": {"title": []}, "search_results": {"url": []}}
            | {"answer": {"aliases": ["Ann", "Annie"], "normalized_aliases": ["ann"], "value": "Ann", "type": "Free"}},
            {"question": "Whose hat is blue?", "question_id": "u", "entity_pages": {"title": []}}
            | {"answer": {"aliases": ["Bob"], "normalized_aliases": ["bob"], "value": "Bob", "type": "Free"}},
        ],
        ["Ann", "Bob"],
        {"aliases": ["Annie"]},
    ),
    "nq_open": (
        [{"question": "whose hat is red", "answer": ["Ann", "Annie"]}, {"question": "how many hats", "answer": ["2", "two"]}]
        + [{"question": "what years", "answer": ["1912", "1913"]}, {"question": "whose is blue", "answer": ["Bob"]}],
        ["Ann", "2", "1912", "Bob"],
        {"aliases": ["Annie"]},
    ),
    "web_questions": (
        [{"url": "u", "question": "who has a hat?", "answers": ["Ann", "Bob"]}, {"url": "u", "question": "who is Ann?", "answers": ["a woman"]}],
        ["Ann", "a woman"],
        {"aliases": ["Bob"]},
    ),
    "popqa": (
        [
            {"id": 1, "subj": "hat", "prop": "owner", "obj": "Ann", "s_aliases": '["cap"]', "o_aliases": '["Annie"]', "question": q}
            | {"possible_answers": answers}
            for q, answers in (("Whose hat?", '["Ann", "Annie"]'), ("Whose blue hat?", '["Bob"]'))
        ],
        ["Ann", "Bob"],
        {"aliases": ["Annie"]},
    ),
    "hotpot_qa": (
        [
            {"id": "h", "question": q, "answer": a, "type": "bridge", "level": "easy", "supporting_facts": {"title": ["Hats"]}}
            | {"context": {"title": ["Hats"], "sentences": [["Ann has a red hat.", "Bob has a blue one."]]}}
            for q, a in (RED, ("Is Bob's blue?", "yes"))
        ],
        ["red", "yes"],
        {"question": f"Ann has a red hat.\nBob has a blue one.\n\n{RED[0]}", "level": "easy"},
    ),
    "simpleqa": (
        [{"metadata": "{'topic': 'Hats'}", "problem": "Whose hat is red?", "answer": "Ann"}]
        + [{"metadata": "{'topic': 'Hats'}", "problem": "Whose hat is blue?", "answer": "Bob"}],
        ["Ann", "Bob"],
        {},
    ),
    "ceval": (
        [
            {"id": i, "question": q, "answer": a, "explanation": "铜是金属。"} | lettered(["铜", "橡树", "棉", "毛"], "A B C D")
            for i, (q, a) in enumerate([("下列哪个是金属？", "A"), ("下列哪个是树？", "B"), ("没有答案？", "")])
        ],
        ["铜", "橡树", "!empty_answer"],
        {"choices": 4, "rationale": "铜是金属。", "language": "zh"},
    ),
    "cmmlu": (
        [{"Question": q, "Answer": a} | lettered(["铜", "橡树", "棉", "毛"], "A B C D") for q, a in (("哪个是金属？", "A"), ("哪个是树？", "B"))],
        ["铜", "橡树"],
        {"choices": 4, "language": "zh"},
    ),
    "agieval": (
        [
            {"passage": None, "question": METAL, "options": ["(A)copper", "(B)oak"], "label": "A", "answer": None, "other": None},
            {"passage": PASSAGE, "question": RED[0], "options": ["(A)blue", "(B)red"], "label": "B", "answer": None},
            {"passage": None, "question": "3 - 1?", "options": None, "label": None, "answer": "2"},
        ],
        ["copper", "red", "2"],
        {"choices": 2, "question": METAL},
    ),
    "agieval, hub": (
        [{"query": f"Q: {q}", "choices": ["(A)copper", "(B)oak"], "gold": [i]} for i, q in enumerate((METAL, PLANT))],
        ["copper", "oak"],
        {"choices": 2},
    ),
    "gaokao-bench": (
        [
            {"index": 0, "year": "2020", "category": "I", "question": "哪个是金属？A. 铜 B. 木 C. 棉 D. 毛", "answer": ["A"]}
            | {"analysis": "铜是金属。", "score": 6},
            {"index": 1, "year": "2020", "category": "I", "question": "哪些是织物？A. 铜 B. 木 C. 棉 D. 毛", "answer": ["C", "D"]}
            | {"analysis": "", "score": 6},
        ],
        ["铜", "CD"],
        {"choices": 4, "rationale": "铜是金属。"},
    ),
    "tal-scq5k": (
        [
            {"queId": "q", "problem": q, "answer_value": a, "answer_analysis": ["Add.", "So."], "difficulty": "1"}
            | {"answer_option_list": [[{"aoVal": c, "content": t}] for c, t in zip("AB", ("3 ", "4 "), strict=True)]}
            | {"knowledge_point_routes": ["Numbers->Addition"]}
            for q, a in (("1 + 2 = ?", "A"), ("2 + 2 = ?", "B"))
        ],
        ["3", "4"],
        {"choices": 2, "rationale": "Add.\nSo.", "level": "1"},
    ),
    "legalbench": (
        [{"index": "0", "answer": "Yes", "text": "Is a hat a garment?"}, {"index": "1", "answer": "No", "text": "Is a hat a shoe?"}],
        ["Yes", "No"],
        {"question": "Is a hat a garment?"},
    ),
    "multirc": (
        [{"paragraph": PASSAGE, "question": RED[0], "answer": a, "label": label, "idx": {"answer": 0}} for a, label in (("red", 1), ("blue", 0))],
        ["red", "!marked_wrong"],
        {"question": f"{PASSAGE}\n\n{RED[0]}"},
    ),
    "medqa, hub": (
        [{"id": "m", "sent1": q, "sent2": "", "label": i} | lettered(FOUR, "ending0 ending1 ending2 ending3") for i, q in enumerate((METAL, PLANT))],
        ["copper", "oak"],
        {"choices": 4, "question": METAL},
    ),
    "scienceqa": (
        [{"question": METAL, "choices": FOUR, "answer": 0, "hint": "", "lecture": "l", "solution": "Copper is.", "grade": "grade2"}]
        + [{"question": PLANT, "choices": FOUR, "answer": 1, "hint": "Look up.", "lecture": "l", "solution": "", "grade": "grade2"}],
        ["copper", "oak"],
        {"choices": 4, "rationale": "Copper is.", "level": "grade2"},
    ),
    "alpaca": (
        [{"instruction": "Name the opposite.", "input": "hot", "output": "cold"}, {"instruction": "Name a tree.", "input": "", "output": "oak"}],
        ["cold", "oak"],
        {"question": "Name the opposite.\n\nhot"},
    ),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("saved", [False, True], ids=["rows", "parquet"])
def test_data_sets_read_as_their_authors_meant(name, saved, tmp_path):
    rows, expected, first = RECIPES[name]
    source = rows
    if saved:
        source = tmp_path / "part.parquet"
        pd.DataFrame(rows).to_parquet(source)
    table, rejects = read_seeds(source)
    got = {row.row: row.answer for row in table.itertuples()} | {row.row: f"!{row.reason}" for row in rejects.itertuples()}
    assert [got[i] for i in sorted(got)] == expected
    row = table.iloc[0]
    assert len(row["choices"] or ()) == first.get("choices", 0)
    if row["choices"]:
        assert row["choices"][row["answer_index"]] == row["answer"]
    for column in set(first) - {"choices", "unused"}:
        assert row[column] == first[column], column
    assert ("aliases" in first) == bool(row["aliases"])
    assert first.get("unused", "") in ", ".join(layout_report(table)["unused"].dropna())


def test_there_are_forty():
    assert len(RECIPES) >= 40
