"""Hand messages over from one spool to another: each is sendable on exactly one side, whatever crashes."""
