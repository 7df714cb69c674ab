"""What the inspector cannot do."""

from __future__ import annotations


class InspectionProblem(Exception):
    """A request that cannot be answered; one sentence for the user."""
