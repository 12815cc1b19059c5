"""The API: names, spec, status, conditions, reasons. Of this project it imports only the contract."""
