"""Real mail servers and clients for the tests, and the relay itself as its operator starts it.

Nothing here imitates: Postfix, smtp-sink, swaks, curl, msmtp and nodemailer are the programs that
`scripts/test` installs (or unpacks into `.testbed/`). A missing one fails the test that asks for it, with the
sentence that says how to get it; no test is skipped for it.

To add a server (Exim, OpenSMTPD): write its configuration in a module of its own, start it with
`process.ServerProcess`, and collect what it received as `arrival.Arrival` values.
"""
