"""Tables that notebooks show: each reads finished stages of a run, pays no teacher, trains nothing, and stores nothing."""

from qatoolkit.core.public import by_module, lazily

__getattr__, __dir__, __all__ = lazily(
    __name__,
    by_module(
        "qatoolkit.run.tables",
        {
            "seeds": "agreement annotation_estimate confusion consensus_estimate consensus_gain exam_summary gold real_seeds "
            "seed_choices seed_sources seed_subjects subject_agreement",
            "synthesis": "against_seeds decisions degradation disputes merges missed paper_reference plan_shares "
            "planted_contamination probe_summary refinement_by_error_rate spend synthesis_counts synthesis_estimate",
            "graph": "adjustment_estimate around asked_and_got coverage frontier longest_walk path_story real_graph walk_settings",
            "training": "averaged_models job_file needs packing schedules",
            "evaluation": "accuracy_by_arm by_level chances changed evaluated forms paper12 scorers",
        },
    ),
)
