"""What this terminal can show: bytes in, no Textual."""
