"""Tables that notebooks show. Each reads finished stages of a run; none calls a teacher, trains or stores anything."""

from qatoolkit.core.public import lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    {
        "seeds": "agreement annotation_estimate confusion consensus_gain exam_summary exams levels parts real_seeds"
        " seed_choices seed_sources seed_subjects subject_agreement",
        "synthesis": "decisions degradation disputes merges missed_questions plan_shares probe_summary"
        " refinement_by_error_rate rule_plans seeds_and_dataset spend synthesis_counts spend_estimate",
        "steps": "accepted_by_cell survival",
        "curation": "diversity mixture near_pairs removals removed_questions",
        "measured": "difficulty_agreement difficulty_estimate pass_rates_by_level",
        "graph": "adjustment_estimate aimed_walks blind_spots coverage coverage_by_set difficulty_counts frontier"
        " longest_walk neighbourhood path_example"
        " real_graph walk_settings",
        "published": "paper_reference pythia recipe_sweep",
        "training": "averaged_models chosen_settings job_file packing schedules training_needs",
        "evaluation": "accuracy_by_arm accuracy_by_form arms changed_questions differences_by_difficulty"
        " evaluated_tasks guessing_accuracy paper12 scorer_agreement training_seeds",
    },
)
