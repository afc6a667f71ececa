"""Values of mail: addresses, envelopes, replies, outcomes, time. No files, no network, no clock reads."""
