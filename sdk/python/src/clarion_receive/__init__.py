"""Verify webhooks sent by Clarion."""
