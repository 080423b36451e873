"""The embedded world: a bilingual textbook, its exams, its corpus and an offline teacher that knows only the
textbook."""
