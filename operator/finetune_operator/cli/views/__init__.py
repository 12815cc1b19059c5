"""What is shown: from objects of the API server to lines of text. Pure: no request, no terminal, no clock."""
