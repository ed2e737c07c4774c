"""Verify webhooks sent by Clarion.

from clarion_receive import VerificationError, Webhook

webhook = Webhook("whsec_…")
event = webhook.verify(body, headers)      # or VerificationError
"""

from __future__ import annotations

from clarion_receive._event import VerifiedEvent
from clarion_receive._verify import VerificationError, Webhook, public_keys

__all__ = ["VerificationError", "VerifiedEvent", "Webhook", "public_keys"]
__version__ = "0.1.0"
