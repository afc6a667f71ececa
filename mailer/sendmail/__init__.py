"""`mailer-sendmail`, the sendmail(8) interface: a client of the receiver's `submitSocket`, and little else.

cron, PHP and git start it for each mail, so it imports next to nothing: no configuration, no click, no
dataclasses (whose `inspect` takes 15 ms). What has to be decided about a mail, the receiver decides.
"""
