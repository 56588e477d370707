"""What was spent, what is reserved, and what models cost."""
