"""What a run leaves in the output place: the committed adapter, and the pointer to the newest one."""
