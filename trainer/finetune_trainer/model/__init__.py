"""The base model and the adapter: loading, quantisation, attention, sharding, and LoRA layers."""
