"""What a run says of itself while it lasts: the record, its rate, and the way to the operator."""
