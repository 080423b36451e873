"""The wording of the textbook: sentence frames by form, language and split.

`train` frames are all that corpus, seeds and teacher ever use; `exam` frames belong to the exams alone; `statement`
frames assert instead of asking and end in the answer. Slots: {e} entity, {r} {r1} {r2} {r3} relation names, {v} a
value, {noun} the type of thing, {list} a list of entities, {top} the superlative, {a} the answer.
"""

FRAMES = {
    "recall": {
        "en": {
            "train": (
                "What is the {r} of {e}?",
                "{e} has which {r}?",
                "Give the {r} of {e}.",
                "When it comes to {e}, what is the {r}?",
                "{e}: what is its {r}?",
                "Tell me which {r} belongs to {e}.",
                "Look at {e} and name its {r}.",
                "If the subject is {e}, the {r} is what?",
                "Determine the {r} of {e}.",
                "Consider {e} and report the {r}.",
                "Identify the {r} that goes with {e}.",
                "Which {r} is found under {e}? State it.",
                "Here is {e}. Its {r} is which one?",
                "Which of the answers is the {r} of {e}?",
                "Correctly stated, the {r} of {e} is what?",
                "Think of {e}. Which is its {r}?",
                "State the correct {r} for {e}.",
                "One answer gives the {r} of {e}. Which one is it?",
                "Which answer is correct for {e} and its {r}?",
            ),
            "exam": ("Consider {e}. Which answer states its {r} correctly?",),
            "statement": ("The {r} of {e} is {a}.", "As for {e}, the {r} is {a}."),
        },
        "zh": {
            "train": (
                "{e}的{r}是什么？",
                "请写出{e}的{r}。",
                "说到{e}，它的{r}是什么？",
                "{r}：{e}对应的是哪一个？",
                "关于{e}，请给出它的{r}。",
                "下列哪一项是{e}的{r}？",
                "对{e}来说，{r}是哪一项？",
                "正确写出{e}的{r}。",
            ),
            "exam": ("对于{e}，下列哪一项正确给出了{r}？",),
            "statement": ("{e}的{r}是{a}。", "说到{e}，它的{r}是{a}。"),
        },
    },
    "reverse": {
        "en": {
            "train": (
                "Which {noun} has the {r} {v}?",
                "{v} is the {r} of which {noun}?",
                "Name the {noun} whose {r} is {v}.",
                "If the {r} is {v}, which {noun} is meant?",
                "Find the {noun}: its {r} is {v}.",
                "Tell me which {noun} it is that has {v} as its {r}.",
                "Determine the {noun} with {v} as {r}.",
                "Consider the {r} {v}: identify its {noun}.",
                "{v} was found under {r}. Which {noun} is it?",
                "Some {noun} has {v} for its {r}. Pick it out.",
                "With {v} found as its {r}, which {noun} is it?",
                "Identify the {noun} that has the {r} {v}.",
            ),
            "exam": ("The {r} was found to be {v}. Identify the {noun} in question.",),
            "statement": ("{v} is the {r} of {a}.", "The {noun} whose {r} is {v} is {a}."),
        },
        "zh": {
            "train": (
                "哪个{noun}的{r}是{v}？",
                "{v}是哪个{noun}的{r}？",
                "若{r}是{v}，这是哪个{noun}？",
                "请找出{r}为{v}的{noun}。",
                "已知{r}是{v}，说出这个{noun}。",
                "它的{r}为{v}：是哪一个{noun}？",
                "查到{v}是某{noun}的{r}，指出是哪一个。",
                "{noun}当中，谁的{r}是{v}？",
            ),
            "exam": ("已知某{noun}，其{r}查得为{v}，它是哪一个？",),
            "statement": ("{v}是{a}的{r}。", "{r}为{v}的{noun}是{a}。"),
        },
    },
    "hop": {
        "en": {
            "train": (
                "What is the {r2} of the {noun} whose {r1} is {v}?",
                "The {noun} with the {r1} {v} has which {r2}?",
                "Give the {r2} of the {noun} that has {v} as its {r1}.",
                "If a {noun} has the {r1} {v}, what is its {r2}?",
                "Find the {noun} whose {r1} is {v} and name its {r2}.",
                "Determine the {r2} that goes with {v} as {r1} of the {noun}.",
                "Some {noun} has {v} under {r1}. Report its {r2}.",
                "Consider the {noun} with {v} as {r1}: its {r2} is which one?",
                "One {noun} shows the {r1} {v}. Which {r2} does it have?",
                "Determine which {r2} belongs to the {noun} with {v} under {r1}.",
            ),
            "exam": ("A certain {noun} shows {v} under {r1}. Determine its {r2}.",),
            "statement": ("The {r2} of the {noun} whose {r1} is {v} is {a}.",),
        },
        "zh": {
            "train": (
                "{r1}为{v}的{noun}，其{r2}是什么？",
                "某{noun}的{r1}是{v}，请写出它的{r2}。",
                "若{noun}的{r1}是{v}，它的{r2}是什么？",
                "有{noun}的{r1}写作{v}，它的{r2}是哪一个？",
                "{v}是某{noun}的{r1}，那么其{r2}是什么？",
                "先由{r1}{v}找到{noun}，再写出{r2}。",
                "查{r1}为{v}的{noun}，说出{r2}一栏的内容。",
            ),
            "exam": ("有一个{noun}，{r1}一栏写着{v}，那么{r2}一栏应写什么？",),
            "statement": ("{r1}为{v}的{noun}，其{r2}是{a}。",),
        },
    },
    "follow": {
        "en": {
            "train": (
                "What is the {r2} of the {r1} of {e}?",
                "Think of the {r1} of {e}: what is its {r2}?",
                "Take {e} and its {r1}. Which {r2} does the latter have?",
                "Find the {r1} of {e}, then name its {r2}.",
                "Tell me which {r2} belongs to the {r1} of {e}.",
                "Go from {e} to its {r1}: which {r2} is found?",
                "Consider {e}. Its {r1} has which {r2}? Report it.",
                "Starting with {e}, look up the {r1} and answer with its {r2}.",
            ),
            "exam": ("Starting from {e}, go to the {r1} and report the {r2} found there.",),
            "statement": ("The {r2} of the {r1} of {e} is {a}.",),
        },
        "zh": {
            "train": (
                "{e}的{r1}的{r2}是什么？",
                "先想{e}的{r1}，再写出它的{r2}。",
                "找出{e}的{r1}，它的{r2}是什么？",
                "{e}的{r1}有怎样的{r2}？",
                "由{e}查到{r1}，其{r2}是哪一个？",
                "从{e}的{r1}出发，写出{r2}。",
                "先看{e}，再找{r1}，最后说出{r2}。",
            ),
            "exam": ("从{e}出发，先找到{r1}，由此查出的{r2}是哪一个？",),
            "statement": ("{e}的{r1}的{r2}是{a}。",),
        },
    },
    "compare": {
        "en": {
            "train": (
                "Which has the {top} {r}: {list}?",
                "Of {list}, which one has the {top} {r}?",
                "Compare {list}: which has the {top} {r}?",
                "Look at {list} and name the one with the {top} {r}.",
                "The {top} {r} among {list} belongs to which one?",
                "Here is a list: {list}. Which has the {top} {r}?",
                "Consider {list} and pick the {top} {r}.",
                "Pick the {top} {r} out of these candidates: {list}.",
                "{list} are the candidates: name the one whose {r} is the {top}.",
            ),
            "exam": ("Here are some candidates: {list}. Pick out the one with the {top} {r}.",),
            "statement": ("Of {list}, the one with the {top} {r} is {a}.",),
        },
        "zh": {
            "train": (
                "{list}中，哪一个的{r}{top}？",
                "比较{list}：谁的{r}{top}？",
                "在{list}里找出{r}{top}的一个。",
                "几个选项{list}里，{r}{top}的是谁？",
                "请从{list}选出{r}{top}的。",
                "{r}{top}的是{list}当中的哪一个？",
            ),
            "exam": ("给出几个选项：{list}。请选出{r}{top}的那一个。",),
            "statement": ("{list}中，{r}{top}的是{a}。",),
        },
    },
    "alike": {
        "en": {
            "train": (
                "Which of {list} has the same {r} as {e}?",
                "{e} shares its {r} with which of these: {list}?",
                "Look at {list} and name the one that has the {r} of {e}.",
                "By {r}, which one of {list} goes together with {e}?",
                "Here is {e}. Exactly one of {list} has its {r}: which?",
                "Pick the one of {list} that goes with {e} by its {r}.",
                "Which one among {list} belongs to {e} if we go by {r}?",
                "{e} and one of {list} have the same {r}: name that one.",
            ),
            "exam": ("Going by {r}, {e} belongs together with exactly one of {list}. Which?",),
            "statement": ("Of {list}, the one with the same {r} as {e} is {a}.",),
        },
        "zh": {
            "train": (
                "{list}中，哪一个与{e}的{r}相同？",
                "{e}与下列哪一个{r}相同：{list}？",
                "{list}当中，谁与{e}的{r}一样？",
                "按{r}，{e}与{list}里的哪一个同类？",
                "在{list}里找出和{e}{r}相同的一个。",
            ),
            "exam": ("按{r}分类，{e}应与{list}当中的哪一个归在一起？",),
            "statement": ("{list}中，与{e}的{r}相同的是{a}。",),
        },
    },
    "chain": {
        "en": {
            "train": (
                "What is the {r3} of the {r2} of the {noun} whose {r1} is {v}?",
                "Take the {noun} whose {r1} is {v}; find its {r2}; what is the {r3} of that?",
                "The {noun} with the {r1} {v} leads to its {r2}. Give the {r3} of the latter.",
                "If a {noun} has the {r1} {v}, what is the {r3} of its {r2}?",
                "Find the {noun} whose {r1} is {v}, then its {r2}, and name the {r3} of that.",
                "Look up the {noun} with {v} as {r1}, go to its {r2} and report the {r3}.",
                "Some {noun} has {v} under {r1}. Its {r2} has which {r3}?",
            ),
            "exam": ("Some {noun} lists {v} as {r1}. Look up the {r2} and answer: which {r3} belongs to it?",),
            "statement": ("The {r3} of the {r2} of the {noun} whose {r1} is {v} is {a}.",),
        },
        "zh": {
            "train": (
                "{r1}为{v}的{noun}，其{r2}的{r3}是什么？",
                "某{noun}的{r1}是{v}。它的{r2}的{r3}是什么？",
                "若{noun}的{r1}是{v}，其{r2}的{r3}是什么？",
                "由{r1}{v}找到{noun}，再沿{r2}查出{r3}。",
                "{v}是某{noun}的{r1}，它的{r2}的{r3}是哪一个？",
                "先找{r1}为{v}的{noun}，再找它的{r2}，最后写出{r3}。",
                "有{noun}的{r1}写作{v}；从其{r2}查到的{r3}是什么？",
            ),
            "exam": ("设有{noun}，{r1}记作{v}；沿着{r2}再查一步，得到的{r3}是哪一个？",),
            "statement": ("{r1}为{v}的{noun}，其{r2}的{r3}是{a}。",),
        },
    },
}

TOP = {
    "number": {"en": ("largest", "smallest"), "zh": ("最大", "最小")},
    "year": {"en": ("latest", "earliest"), "zh": ("最晚", "最早")},
}
