"""The results of a run: the adapter, the merged model, and the record of the run for people and tools."""
