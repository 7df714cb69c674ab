"""The worker process: torch and diffusers live here."""
