"""The vocabulary: names, spec, status, conditions, reasons. Imports nothing of ours but the contract."""
