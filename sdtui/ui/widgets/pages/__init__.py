"""The parts of a module's page, one of which is shown at a time."""
