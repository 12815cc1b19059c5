"""A trainer that trains nothing: it plays a scenario, so that cluster tests see every end of a pod in seconds.

It speaks the real wire formats by the real `finetune_trainer.contract` and stands in for both images. The scenario is
the variable FINETUNE_SCENARIO (`scenario` says what it may hold), which a FineTuneJob sets by `scheduling.env`.
"""
