"""Clarion: webhooks that a system of record's integrators can rely on."""

__version__ = "0.1.0"
