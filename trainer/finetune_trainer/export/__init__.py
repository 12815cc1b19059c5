"""What a run leaves: the adapter, the merged model, and the record of the run for people and tools."""
