"""Runs a sampling function line by line, beside the worker, and says what each line made."""
