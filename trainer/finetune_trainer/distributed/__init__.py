"""Several processes that train one adapter: one per GPU, in one pod or in several.

Every process holds the whole base model, or its shard of it. The micro-batches of a step are divided among the
processes. The gradients are summed over the processes, and then every process takes the same optimizer step.

transformers and accelerate see a single process: torchrun's variables are not set, and there is no default process
group. So they do not divide the work themselves.

`launch` starts the processes of a pod and does not import torch. `process_group` connects the processes.
"""
