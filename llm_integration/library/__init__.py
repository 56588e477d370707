"""The model layer for other programs: clients in OpenAI's and in plain shape, over whatever backend is configured."""
