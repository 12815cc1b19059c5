"""A trainer that trains nothing and plays a scenario, so that cluster tests see every end of a pod within seconds.

It writes the real wire formats with the real `finetune_trainer.contract`, and replaces both images. The variable
FINETUNE_SCENARIO has the scenario (see `scenario`). A FineTuneJob sets it by `scheduling.env`.
"""
