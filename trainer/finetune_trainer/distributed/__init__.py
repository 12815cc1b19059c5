"""Several processes that train one adapter: one a GPU, in one pod or in several.

Every process holds the whole model, or its share of it (`sharding`), and sees the same optimizer step; the passes of a
step are dealt out, and the gradients are added up before every process takes the same optimizer step. transformers and
accelerate believe that they are alone (their own variables are not set, and there is no default process group), so
nothing of the trainer changes under them.

`launch` starts the processes of a pod and knows no torch; `process_group` connects them.
"""
