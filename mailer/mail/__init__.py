"""Value types for mail: addresses, envelopes, replies, outcomes, time. No files, network or clock reads."""
